"""What makes a local operator: the terms of its weights, their normalisation, where it looks; as a short string too."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..ops.local import BORDERS

TERMS = ("qk", "qr", "rk", "rb")
NORMS = ("softmax", "filter", "none")
REGIONS = ("neighborhood", "window")


@dataclass(frozen=True)
class LocalSpec:
    """A member of the family ``out_i = Σ_j Norm_j(scale · q_i·k_j + q_i·r^k_{j−i} + r^q_{j−i}·k_j + r^b_{j−i}) · v_j``.

    As a string it is the terms, the norm and the region, and what else there is: ``"qk+rb softmax window"``,
    ``"hadamard softmax neighborhood mul add"``, ``"rb none neighborhood border=circular heads=C"``.

    Attributes:
        terms: Which of the terms there are: "qk" (q·k), "qr" (q·r^k), "rk" (r^q·k), "rb" (r^b); or "hadamard" alone,
            whose weights are those of `elsa_ext.hadamard_attention`.
        norm: "softmax", "filter" (less the mean, over the unbiased deviation, times a learned gain) or "none".
        region: "neighborhood", the K×K pixels around a pixel, or "window", the one of the K×K windows that it is in.
        mul: Multiply the weights of every channel by a learned matrix.
        add: Add a learned matrix to the weights of every channel.
        border: Of a neighborhood, that of the ops; None means "zeros".
        heads: A number, "C" for one to every channel, or None to leave it to who makes the layer.

    Raises:
        ValueError: There is no such operator; the message says why.
    """

    terms: tuple[str, ...]
    norm: str = "softmax"
    region: str = "neighborhood"
    mul: bool = False
    add: bool = False
    border: str | None = None
    heads: int | str | None = None

    def __post_init__(self) -> None:
        given = [self.terms] if isinstance(self.terms, str) else list(self.terms)
        for term in given:
            if term not in (*TERMS, "hadamard"):
                raise ValueError(f'LocalSpec: terms are {", ".join(TERMS)}, joined by "+", or hadamard, got {term!r}')
        if not given or len(set(given)) < len(given):
            raise ValueError(f"LocalSpec: terms must be one or more, each of them once, got {'+'.join(given)!r}")
        if "hadamard" in given and len(given) > 1:
            raise ValueError(f"LocalSpec: hadamard stands alone: its weights are no sum, got {'+'.join(given)}")
        object.__setattr__(self, "terms", tuple(sorted(given, key=(*TERMS, "hadamard").index)))
        _one_of("norm", self.norm, NORMS)
        _one_of("region", self.region, REGIONS)
        if self.border is not None:
            _one_of("border", self.border, BORDERS)
        if self.heads is not None and self.heads != "C" and not (type(self.heads) is int and self.heads > 0):
            raise ValueError(f'LocalSpec: heads must be a positive number or "C", got {self.heads!r}')
        self._check_combination()

    def _check_combination(self) -> None:
        why = None
        if self.region == "window" and self.border is not None:
            why = "border is of a neighborhood: a window has no taps outside of it"
        elif self.border == "mask" and self.norm != "softmax":
            why = 'border "mask" is for a softmax: without one, taps outside the map weigh nothing over "zeros" too'
        elif self.hadamard and self.region == "window":
            why = "hadamard goes with a neighborhood: its convolution looks across the edges of windows"
        elif self.hadamard and self.border not in (None, "zeros"):
            why = f'hadamard goes with the border "zeros": that is what its convolution sees, got "{self.border}"'
        if why:
            raise ValueError(f"LocalSpec: {why}")

    @classmethod
    def parse(cls, text: str) -> LocalSpec:
        """Read a string such as ``"qk+rb softmax window"``: terms, norm and region, and whatever else, by blanks."""
        words = text.split()
        if len(words) < 3:
            expected = 'a spec has terms, a norm and a region, as in "qk+rb softmax window"'
            raise ValueError(f"LocalSpec: {expected}, got {text!r}")
        terms, norm, region, *others = words
        options: dict[str, bool | int | str] = {}
        for word in others:
            name, _, value = word.partition("=")
            if word in ("mul", "add"):
                options[name] = True
            elif value and name in ("border", "heads") and name not in options:
                options[name] = int(value) if value.isdecimal() else value
            else:
                expected = "after the region come mul, add, border=NAME and heads=NUMBER or heads=C"
                raise ValueError(f"LocalSpec: {expected}, each once, got {word!r}")
        return cls(tuple(terms.split("+")), norm, region, **options)  # type: ignore[arg-type]

    def __str__(self) -> str:
        words = ["+".join(self.terms), self.norm, self.region]
        for field in fields(self)[3:]:
            value = getattr(self, field.name)
            if value is True:
                words.append(field.name)
            elif value:
                words.append(f"{field.name}={value}")
        return " ".join(words)

    @property
    def hadamard(self) -> bool:
        """Whether the weights are those of Hadamard attention."""
        return self.terms == ("hadamard",)

    @property
    def elsa(self) -> bool:
        """Whether it is a layer that `elsa_ext.nn.ELSA` is too, ``lam`` and ``gamma`` being ``mul`` and ``add``."""
        plain = self.norm == "softmax" and self.border in (None, "zeros") and self.heads is None
        return self.hadamard and plain

    @property
    def has_query(self) -> bool:
        """Whether the weights depend on a query."""
        return self.hadamard or "qk" in self.terms or "qr" in self.terms

    @property
    def has_key(self) -> bool:
        """Whether the weights depend on keys."""
        return self.hadamard or "qk" in self.terms or "rk" in self.terms

    @property
    def moves(self) -> bool:
        """Whether taps are at other offsets from one pixel to the next, so that there are (2K−1)² offsets, not K²."""
        return self.region == "window" or self.border == "shift"


def _one_of(name: str, given: object, allowed: tuple[str, ...]) -> None:
    if given not in allowed:
        raise ValueError(f"LocalSpec: {name} must be {', '.join(allowed[:-1])} or {allowed[-1]}, got {given!r}")
