"""Fit the polynomials of the CPU kernels again, and hold the coefficients in the sources against the fit.

``python benchmarks/fit_coefficients.py`` prints, for every polynomial, the largest relative error of the fit and of
what the source has. It fails if the source's is half as large again: then it has other coefficients.
"""

import re
import sys
from collections.abc import Callable
from math import erfc, exp
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SOURCES = Path(__file__).parent.parent / "src" / "cpu"
NODES, ROUNDS = 2000, 200


def exp2(x: Array) -> Array:
    """Return 2^x."""
    return 2.0**x


def scaled_erfc(t: Array) -> Array:
    """Return exp(z²) · erfc(z) at t = 1 / (1 + z / 2)."""
    return np.array([exp(z * z) * erfc(z) for z in 2 * (1 / t - 1)])


# Source file, function, interval, degree. Beyond z = 9.6 erfc vanishes in float32.
FITS = {
    "2^x": ("exp2.h", exp2, (-0.5, 0.5), 6),
    "exp(z²) · erfc(z) in 1 / (1 + z / 2)": ("gelu.h", scaled_erfc, (1 / (1 + 9.6 / 2), 1.0), 9),
}


def fit(function: Callable[[Array], Array], low: float, high: float, degree: int) -> Array:
    """Return the polynomial, lowest coefficient first, whose largest relative error is nearly the least.

    Least squares at Chebyshev nodes, whose weights are multiplied by the errors again and again (Lawson, 1961).
    """
    x = low + (high - low) * (np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES) + 1) / 2
    y = function(x)
    powers = np.stack([x**k for k in range(degree + 1)], 1)
    weights = np.ones(NODES)
    for _ in range(ROUNDS):
        root = np.sqrt(weights) / y
        coefficients = np.linalg.lstsq(powers * root[:, None], y * root, rcond=None)[0]
        weights *= np.abs(powers @ coefficients / y - 1)
        weights /= weights.sum()
    return coefficients


def coefficients_of(file: str) -> Array:
    """Return the coefficients in a source, lowest first: those of `series`, which begins with the highest."""
    text = (SOURCES / file).read_text()
    match = re.search(r"series = FloatVector\{\} ([+-]) ([\d.e+-]+)f;.*?:\s*\{(.*?)\}\)", text, re.DOTALL)
    assert match is not None, f"{file} has no series"
    sign, first, rest = match.groups()
    numbers = [float(sign + first), *(float(number.strip().rstrip("f")) for number in rest.split(","))]
    return np.array(numbers[::-1])


def main() -> None:
    """Print the comparison; exit with an error if the sources have other coefficients."""
    wrong = []
    for name, (file, function, (low, high), degree) in FITS.items():
        fitted, written = fit(function, low, high, degree), coefficients_of(file)
        x = np.linspace(low, high, 10_001)
        errors = [np.abs(np.polyval(c[::-1], x) / function(x) - 1).max() for c in (fitted, written)]
        print(f"{name}: largest relative error {errors[1]:.2e} in {file}, {errors[0]:.2e} of the fit")
        print("  " + ", ".join(f"{c:.9e}" for c in fitted[::-1]))
        if errors[1] > 1.5 * errors[0]:
            wrong.append(file)
    if wrong:
        sys.exit(f"not the coefficients of the fit: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
