"""The arguments of ``elsa-ext bench``."""

import argparse

from ..argument_types import Parser, given, number
from .problems import DTYPES, LAYOUTS, MATRICES, PRESETS

OPS = ("ghost_head", "hadamard_attention")

BENCH = """\
Time ELSA against what people would use in its place.

Every round runs each contender once, and the two floors of the machine: the rate of torch.mm and the bandwidth of a
large copy. So all of them see the same machine, and a ratio holds where times drift. A baseline that the machine lacks
is named as absent.
"""

EXAMPLES = """\
examples:
  elsa-ext bench op                                            both ops at the four presets
  elsa-ext bench op --preset swin-t-1 --backprop --json now.json --plot now.png
  elsa-ext bench op --size 14 --channels 64 --kernel-size 3 --dtype bfloat16 --baselines depthwise
  elsa-ext bench op --preset all --baselines none --compare before.json   exit code 1 if something became slower
  elsa-ext bench module --preset swin-t-1 --backprop           the ELSA layer against window attention
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
  of floor  what the multiply-adds at the rate of torch.mm would take, or the bytes at that of a copy, whichever is
            longer, over the time
  peak MiB  of what one call allocates, the most that is there at one time, its results included
  ratio     time of the row over that of ours in the same direction
"""

OP = f"""\
Time elsa_ext.ghost_head and elsa_ext.hadamard_attention.

baselines:
  formula    the op in plain PyTorch, which unfolds value or calls oneDNN's or cuDNN's grouped convolution
  compile    what torch.compile makes of the formula
  depthwise  a depthwise convolution of value, or of query, in its faster layout
  flex       FlexAttention over the same neighbours: makes the attention map and applies it, the work of both ops
  natten     NATTEN, likewise
The first two are rated by the work of the op, the others by their own.

{COLUMNS}"""

MODULE = f"""\
Time elsa_ext.nn.ELSA over a (B, H, W, C) map: both ops and the projections around them, a block without norms and MLP.

baselines:
  formula    the same layer with both ops in plain PyTorch
  compile    what torch.compile makes of that
  timm       what the layer replaces: shifted window attention from roll to roll, or outlook attention in volo-d1
  flex       FlexAttention over the same neighbours, with projections before and after
  natten     NATTEN, likewise

{COLUMNS}"""

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

    op = kinds.add_parser("op", help="the two ops", description=OP, formatter_class=formatter)
    op.add_argument(
        "--op", nargs="+", choices=OPS, default=OPS, metavar="NAME", help=f"{' or '.join(OPS)} (default: both)"
    )
    add_problem(op)
    add_measurement(op, ("formula", "compile", "depthwise", "flex", "natten"))

    module = kinds.add_parser("module", help="the ELSA layer", description=MODULE, formatter_class=formatter)
    add_problem(module)
    add_measurement(module, ("formula", "compile", "timm", "flex", "natten"))

    model = kinds.add_parser("model", help="whole models", description=MODEL, formatter_class=formatter)
    add_model(model)
    add_measurement(model)


def add_problem(parser: argparse.ArgumentParser) -> None:
    """Add what makes a problem."""
    group = parser.add_argument_group("problem, by default each of the four presets")
    group.add_argument(
        "--preset",
        nargs="+",
        choices=(*PRESETS, "all"),
        metavar="NAME",
        help=f"{', '.join(PRESETS)}, or all: the attention layers of Swin-T and VOLO-D1; flags below change them. "
        "Without --preset, those from --size to --group-width make one problem, otherwise as swin-t-1",
    )
    add_tensors(group, batch=8)
    group.add_argument("--size", type=map_size, metavar="N|HxW", help="side of the map, or height and width")
    counts = {
        "channels": "channels of value",
        "heads": "attention maps per pixel (default: one per 32 channels)",
        "kernel-size": "side of the neighbourhood, odd",
        "dilation": "distance of neighbours (default: 1)",
        "stride": "distance of output pixels (default: 1)",
        "group-width": "channels per group of the convolution of hadamard_attention",
    }
    for flag, text in counts.items():
        group.add_argument(f"--{flag}", type=number(int, 1), metavar="N", help=text)
    group.add_argument(
        "--matrices",
        choices=MATRICES,
        metavar="WHICH",
        help="ghost matrices: both, mul (gamma = 0), add (lambda = 0) or none (default: add, as in Swin; both in "
        "volo-d1)",
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


def add_measurement(parser: argparse.ArgumentParser, baselines: tuple[str, ...] = ()) -> None:
    """Add how to measure, what of ``baselines`` to compare with, and where the results go."""
    group = parser.add_argument_group("measurement")
    if baselines:
        group.add_argument(
            "--baselines",
            nargs="+",
            choices=(*baselines, "all", "none"),
            default=["all"],
            metavar="NAME",
            help=f"what to compare with: {', '.join(baselines)}, all or none (default: all)",
        )
        parser.set_defaults(all_baselines=baselines)
    group.add_argument("--backprop", action="store_true", help="also forward and backward, of models a training step")
    group.add_argument("--repeats", type=number(int, 1), default=20, metavar="N", help="rounds (default: %(default)s)")
    group.add_argument(
        "--threads",
        type=number(int, 1),
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
    results.add_argument("--plot", type=given, metavar="FILE", help="draw times, floors and ratios as a PNG picture")
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
