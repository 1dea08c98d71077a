"""The arguments of ``elsa-ext bench``."""

import argparse
import textwrap
from collections.abc import Sequence

from ..argument_types import MOST_WORKERS, Parser, given, number, picture
from .problem_elsa import MATRICES
from .problem_family import MODULES
from .problem_local import BIASES, BORDERS
from .problems import DTYPES, LAYOUTS
from .subjects import DEFAULTS, SUBJECTS, Subject

BENCH = """\
Time local attention against what people would use in its place.

Every round runs each contender once, and the two floors of the machine: the rate of torch.mm and the bandwidth of a
large copy. So all of them see the same machine, and a ratio holds where times drift. A baseline that the machine lacks
is named as absent.
"""

EXAMPLES = """\
examples:
  elsa-ext bench op                                            both ops of ELSA at its four presets
  elsa-ext bench op --op neighborhood_attention --preset swin-t-1 swin-t-2 swin-t-3 --backprop
  elsa-ext bench op --op neighborhood_logits --size 64x48 --channels 64 --dilation 4 --border circular
  elsa-ext bench op --preset swin-t-1 --backprop --json now.json --plot now.png
  elsa-ext bench op --size 14 --channels 64 --kernel-size 3 --dtype bfloat16 --baselines depthwise
  elsa-ext bench op --preset all --baselines none --compare before.json   exit code 1 if something became slower
  elsa-ext bench module --preset swin-t-1 --backprop           the ELSA layer against window attention
  elsa-ext bench module --module NeighborhoodAttention --preset dinat-mini-1 dinat-mini-1-far
  elsa-ext bench module --module family --backprop             every member of the family, and what people use for it
  elsa-ext bench module --module family --member "qr softmax window" --size 28 --channels 192
  elsa-ext bench model --batch 4 --backprop                    inference and a training step of elsa_swin_tiny
"""

BYTES = "GB/s      bytes of inputs, outputs and gradients, each tensor counted once, over the time"
IMAGES = "images/s  images over the time"
COLUMNS = f"""\
columns:
  rounds    samples that the row is made of; fewer for what takes over half a second and twice as long as ours
  ms, IQR   median time of a call, and the distance between the quartiles
  {BYTES}
  GFMA/s    multiply-adds (a lone addition or product counts as one) over the time
  of mm     the multiply-adds at the rate of torch.mm, over the time
  of floor  the same, or the bytes at the rate of a copy over the time, whichever is more
  peak MiB  of what one call allocates, the most that is there at one time, its results included
  extra     MiB of memory that one call needs beyond its inputs and results, at its peak, whoever allocates it
  ratio     time of the row over that of ours in the same direction
"""


def described(intro: str, kind: str) -> str:
    """Return the description of a kind of run: its subjects, each with its baselines, and the columns."""
    lines = [intro]
    texts: dict[str, str] = {}
    for subject in SUBJECTS[kind].values():
        texts |= subject.baselines
        lines += wrapped(subject.name, "beside " + ", ".join(subject.baselines), 24)
    lines += ["", "baselines:"]
    for key, text in texts.items():
        lines += wrapped(key, text, 11)
    return "\n".join([*lines, "", COLUMNS])


def wrapped(name: str, text: str, width: int) -> list[str]:
    """Return a name with its text beside it."""
    return textwrap.wrap(f"{name:<{width}}{text}", 118, initial_indent="  ", subsequent_indent=" " * (width + 2))


OP = """\
Time functions of elsa_ext. The formula, what is compiled of it, and what does the same work are rated by the work of
the op, the others by their own.
"""
MODULE = """\
Time layers over a (B, H, W, C) map, with the projections around the ops: a block without norms and MLP. FlexAttention,
NATTEN and scaled_dot_product_attention get projections before and after as well.
"""
MODEL = f"""\
Time whole models: inference, and with --backprop also a training step (forward, loss, backward, AdamW).

{COLUMNS.replace(BYTES, IMAGES)}"""


def add_bench(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Add ``elsa-ext bench`` and what it measures."""
    formatter = argparse.RawDescriptionHelpFormatter
    bench = commands.add_parser(
        "bench",
        help="time the ops, the layer and the models",
        description=BENCH,
        epilog=EXAMPLES,
        formatter_class=formatter,
    )
    kinds = bench.add_subparsers(dest="kind", metavar="WHAT", required=True)

    for kind, text, description in (("op", "the ops", OP), ("module", "layers", MODULE)):
        parser = kinds.add_parser(
            kind,
            help=text,
            description=described(description, kind),
            epilog=examples_of(kind),
            formatter_class=formatter,
        )
        add_subjects(parser, kind)
        add_problem(parser, list(SUBJECTS[kind].values()))
        add_measurement(parser, list(SUBJECTS[kind].values()))
        parser.set_defaults(comparisons="comparisons")

    model = kinds.add_parser(
        "model", help="whole models", description=MODEL, epilog=examples_of("model"), formatter_class=formatter
    )
    add_model(model)
    add_measurement(model)
    model.set_defaults(comparisons="model")


def examples_of(kind: str) -> str:
    """Return the examples of a kind of run."""
    return "\n".join(["examples:", *(line for line in EXAMPLES.splitlines() if f" bench {kind} " in line)]) + "\n"


def add_subjects(parser: argparse.ArgumentParser, kind: str) -> None:
    """Add what to time."""
    parser.add_argument(
        f"--{kind}",
        dest="subjects",
        nargs="+",
        choices=SUBJECTS[kind],
        default=DEFAULTS[kind],
        metavar="NAME",
        help=f"{', '.join(SUBJECTS[kind])} (default: {' and '.join(DEFAULTS[kind])})",
    )


def add_problem(parser: argparse.ArgumentParser, subjects: list[Subject]) -> None:
    """Add what makes a problem."""
    kinds = list(dict.fromkeys(subject.problem for subject in subjects))
    presets = {kind.what: ", ".join(kind.presets) for kind in kinds}
    group = parser.add_argument_group("problem, by default each of the presets")
    group.add_argument(
        "--preset",
        nargs="+",
        choices=list(dict.fromkeys(name for kind in kinds for name in (*kind.presets, "all"))),
        metavar="NAME",
        help=f"{'; '.join(f'of {what}: {names}' for what, names in presets.items())}; or all. Layers of Swin-T, "
        "VOLO-D1 and DiNAT-Mini, and members of the family, which flags below change. Without --preset, those from "
        "--size to --group-width, and --member, make one problem, otherwise as the first preset",
    )
    add_tensors(group, batch=8)
    group.add_argument("--size", type=map_size, metavar="N|HxW", help="side of the map, or height and width")
    counts = {
        "channels": "channels of value",
        "heads": "attention maps per pixel (default: one per 32 channels)",
        "kernel-size": "side of the neighbourhood, of ELSA odd",
        "dilation": "distance of neighbours (default: 1)",
        "stride": "of ELSA: distance of output pixels (default: 1)",
        "group-width": "of ELSA: channels per group of the convolution of hadamard_attention",
    }
    for flag, text in counts.items():
        group.add_argument(f"--{flag}", type=number(int, 1), metavar="N", help=text)
    group.add_argument(
        "--matrices",
        choices=MATRICES,
        metavar="WHICH",
        help="of ELSA, the ghost matrices: both, mul (gamma = 0), add (lambda = 0) or none (default: add, as in Swin; "
        "both in volo-d1)",
    )
    group.add_argument(
        "--border",
        choices=BORDERS,
        metavar="NAME",
        help=f"of neighbourhood attention: {', '.join(BORDERS)} (default: {BORDERS[0]}, which is NATTEN's)",
    )
    group.add_argument(
        "--window-stride",
        type=number(int, 1),
        metavar="N",
        help="of neighbourhood attention: outputs that share a window, along either axis (default: 1)",
    )
    group.add_argument(
        "--bias",
        choices=BIASES,
        metavar="WHICH",
        help=f"of neighbourhood attention: {' or '.join(BIASES)} (default: {BIASES[0]})",
    )
    group.add_argument(
        "--member",
        type=given,
        metavar="SPEC",
        help="of the family: a spec such as 'qr softmax window', as elsa_ext.nn.LocalAttention takes it, or "
        f"{', '.join(MODULES[:-1])} or {MODULES[-1]}",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the models and their images."""
    group = parser.add_argument_group("problem")
    group.add_argument(
        "--model",
        type=given,
        nargs="+",
        default=["elsa_swin_tiny"],
        metavar="NAME",
        help="any model of timm or elsa_ext, one or more (default: elsa_swin_tiny)",
    )
    group.add_argument(
        "--baseline",
        "--baselines",
        dest="baselines",
        type=given,
        nargs="+",
        metavar="NAME",
        help="models of timm to compare with; formula is the same model with the ops in plain PyTorch; none "
        "(default: the Swin or VOLO of the same size, and formula)",
    )
    group.add_argument(
        "--image-size",
        type=number(int, 1),
        metavar="N",
        help="images of N x N pixels (default: the size that the model is made for)",
    )
    add_tensors(group, batch=4)


def add_tensors(group: "argparse._ArgumentGroup", batch: int) -> None:
    """Add how many images there are and how their tensors are stored."""
    group.add_argument(
        "--batch", type=number(int, 1), default=batch, metavar="N", help="images per call (default: %(default)s)"
    )
    group.add_argument(
        "--dtype", choices=DTYPES, default=DTYPES[0], help=f"{', '.join(DTYPES)} (default: %(default)s)", metavar="NAME"
    )
    group.add_argument(
        "--layout",
        choices=LAYOUTS,
        default=LAYOUTS[0],
        metavar="NAME",
        help=f"of the maps: {' or '.join(LAYOUTS)} (default: %(default)s)",
    )


def add_measurement(parser: argparse.ArgumentParser, subjects: Sequence[Subject] = ()) -> None:
    """Add how to measure, what to compare ``subjects`` with, and where the results go."""
    group = parser.add_argument_group("measurement")
    if subjects:
        baselines = list(dict.fromkeys(key for subject in subjects for key in subject.baselines))
        group.add_argument(
            "--baselines",
            nargs="+",
            choices=(*baselines, "all", "none"),
            default=["all"],
            metavar="NAME",
            help="what to compare with, as listed above, all or none (default: all)",
        )
    group.add_argument("--backprop", action="store_true", help="also forward and backward, of models a training step")
    group.add_argument("--repeats", type=number(int, 1), default=20, metavar="N", help="rounds (default: %(default)s)")
    group.add_argument(
        "--threads",
        type=number(int, 1, MOST_WORKERS),
        metavar="N",
        help="threads of torch (default: as many as torch takes by itself)",
    )
    group.add_argument(
        "--device", type=given, metavar="NAME", help="such as cpu or cuda:1 (default: cuda if there is one, or cpu)"
    )

    results = parser.add_argument_group("results")
    results.add_argument(
        "--json", type=given, metavar="FILE", help="write what is measured, and on what machine, after every table"
    )
    results.add_argument(
        "--plot", type=picture, metavar="FILE.png", help="draw times, floors and ratios as a PNG picture"
    )
    results.add_argument(
        "--compare",
        type=given,
        metavar="FILE",
        help="show the times over those in an earlier JSON of the same kind of run. Exit code 1: a row of ours is "
        "slower than it was by more than the tolerance; 2: the file cannot be used, or has no row of these",
    )
    results.add_argument(
        "--tolerance",
        type=number(float, 0.0),
        default=10.0,
        metavar="PERCENT",
        help="for --compare (default: %(default)g)",
    )


def map_size(text: str) -> tuple[int, int]:
    """Read ``N`` or ``HxW``."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() and int(side) for side in sides):
        raise argparse.ArgumentTypeError(f"expected N or HxW, such as 56 or 28x56, got {text!r}")
    return int(sides[0]), int(sides[-1])
