"""What ``elsa-ext bench op`` and ``module`` time. Without torch, as the parser needs it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .problem_elsa import ElsaProblem
from .problem_family import FamilyProblem
from .problem_local import LocalProblem
from .problems import Problem

FORMULA = {
    "formula": "the same in plain PyTorch, which unfolds its maps or calls oneDNN's or cuDNN's grouped convolution",
    "compile": "what torch.compile makes of the formula",
}
NEIGHBOURS = {"flex": "FlexAttention, compiled, over the same neighbours", "natten": "NATTEN, likewise"}
DEPTHWISE = {"depthwise": "a depthwise convolution of value, or of query, in its faster layout"}
SDPA = {"sdpa": "scaled_dot_product_attention: every pixel attends to the whole map"}
UNFOLD = {"unfold": "F.unfold and products of what it makes, over the border zeros"}
ZEROS = {"zeros": "ours over the border zeros, where the problem has another one"}
UNFUSED = {"unfused": "ours in two ops, neighborhood_logits and ghost_head, with a softmax between"}
CONVOLUTION = {"conv2d": "F.conv2d, of a depthwise convolution, in windows where the member is"}
WINDOWS = {"timm": "shifted window attention from roll to roll, or outlook attention in volo-d1"}


@dataclass(frozen=True)
class Subject:
    """An op or a layer, and what to time beside it.

    Attributes:
        name: What the command line and the tables call it.
        problem: The kind of problems that it takes.
        describe: Describes one in a line.
        baselines: What there is to compare with, by key, and what that is.
        contenders: Where the function is that yields the contenders, as module:function.
    """

    name: str
    problem: type[Problem]
    describe: Callable[[Any], str]
    baselines: dict[str, str]
    contenders: str


OPS = (
    Subject(
        "ghost_head",
        ElsaProblem,
        ElsaProblem.with_matrices,
        FORMULA | DEPTHWISE | NEIGHBOURS,
        "op_elsa:ghost_head",
    ),
    Subject(
        "hadamard_attention",
        ElsaProblem,
        ElsaProblem.with_convolution,
        FORMULA | DEPTHWISE | NEIGHBOURS,
        "op_elsa:hadamard_attention",
    ),
    Subject(
        "neighborhood_attention",
        LocalProblem,
        str,
        FORMULA | UNFOLD | UNFUSED | ZEROS | SDPA | NEIGHBOURS,
        "op_local:neighborhood_attention",
    ),
    Subject(
        "neighborhood_logits",
        LocalProblem,
        str,
        FORMULA | UNFOLD | ZEROS | {"natten": NEIGHBOURS["natten"]},
        "op_local:neighborhood_logits",
    ),
)
MODULES = (
    Subject("ELSA", ElsaProblem, ElsaProblem.with_matrices, FORMULA | WINDOWS | NEIGHBOURS, "module_elsa:contenders"),
    Subject(
        "NeighborhoodAttention",
        LocalProblem,
        str,
        FORMULA | WINDOWS | SDPA | NEIGHBOURS,
        "module_local:contenders",
    ),
    Subject("family", FamilyProblem, str, FORMULA | CONVOLUTION | WINDOWS | NEIGHBOURS, "module_family:contenders"),
)
SUBJECTS = {
    kind: {subject.name: subject for subject in subjects} for kind, subjects in (("op", OPS), ("module", MODULES))
}
DEFAULTS = {"op": ["ghost_head", "hadamard_attention"], "module": ["ELSA"]}
