"""The members of the family of local operators, as layers. Without torch, as the parser needs it."""

from dataclasses import dataclass
from typing import Any

from ..errors import CommandError
from .problems import Problem

STAGE: dict[str, Any] = dict(size=(56, 56), channels=96, kernel_size=7)
HALF: dict[str, Any] = dict(size=(28, 28), channels=96)
# All at the size of the first stage of Swin-T, which two reach by upsampling; those of other papers with their own K.
PRESETS: dict[str, dict[str, Any]] = {
    "window": STAGE | dict(member="qk+rb softmax window"),
    "neighborhood": STAGE | dict(member="qk+rb softmax neighborhood border=shift"),
    "depthwise": STAGE | dict(member="rb none neighborhood heads=C"),
    "depthwise-window": STAGE | dict(member="rb none window heads=C"),
    "dynamic-filter": STAGE | dict(member="qr none neighborhood"),
    "all-terms": STAGE | dict(member="qk+qr+rk+rb softmax neighborhood"),
    "elsa": STAGE | dict(member="hadamard softmax neighborhood mul add"),
    "ddf": STAGE | dict(member="DDF", kernel_size=3),
    "ddf-up": HALF | dict(member="DDFUp", kernel_size=3),
    "involution": STAGE | dict(member="Involution"),
    "carafe": HALF | dict(member="CARAFE", kernel_size=5),
}
MODULES = ("DDF", "DDFUp", "Involution", "CARAFE")


@dataclass(frozen=True, kw_only=True)
class FamilyProblem(Problem):
    """One layer of a member: a spec of `elsa_ext.nn.LocalAttention`, or one of ``MODULES``."""

    what = "the family"
    presets = PRESETS
    sizes = ("size", "channels", "heads", "kernel_size", "dilation", "member")
    options = ()

    member: str

    def check(self) -> None:
        """Raise a ``CommandError`` if there is no such member."""
        from ...nn import LocalSpec

        super().check()
        try:
            if self.member not in MODULES:
                LocalSpec.parse(self.member)
        except ValueError as error:
            raise CommandError(f"--member {self.member!r}: {error}") from error

    def parts(self) -> list[str]:
        """Return member and sizes in words."""
        image, heads, *others = super().parts()
        return [self.member, image, *([] if self.member in MODULES or "heads=" in self.member else [heads]), *others]
