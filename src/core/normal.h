// The constants of the normal distribution, for GELU(x) = x · Φ(x).
#pragma once

namespace elsa {

constexpr double inverse_sqrt_2 = 0.70710678118654752440;     // 1 / √2: Φ(x) = (1 + erf(x / √2)) / 2
constexpr double inverse_sqrt_2_pi = 0.39894228040143267794;  // 1 / √(2π): Φ'(x) = exp(−x² / 2) / √(2π)

}  // namespace elsa
