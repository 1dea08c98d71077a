"""The arguments of ``elsa-ext bench``."""

import argparse

from ..argument_types import Parser, number
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

COLUMNS = """\
columns:
  rounds   samples that the row is made of; fewer for what takes more than half a second
  ms, IQR  median time of a call, and the distance between the quartiles
  GB/s     bytes of the tensors, each counted once, over the time
  GFMA/s   multiply-adds of the problem over the time
  floor    share of the time that the multiply-adds at the rate of torch.mm, or the bytes at that of a copy,
           would take, whichever is longer
  MiB      most that one call allocates beyond what was there before it, its results included
  ratio    time of the row over that of ours in the same direction
"""

OP = f"""\
Time elsa_ext.ghost_head and elsa_ext.hadamard_attention.

All contenders of an op are rated by the multiply-adds and bytes of the op. FlexAttention and NATTEN make the attention
map and apply it, the work of both ops, and are shown against each.

{COLUMNS}"""

MODULE = f"""\
Time elsa_ext.nn.ELSA over a (B, H, W, C) map: the projections, both ops, everything of a block but norms and MLP.

Its peer in timm is the part of a Swin block from roll to roll, shifted window attention, or VOLO's outlook attention
for the preset volo-d1.

{COLUMNS}"""

MODEL = f"""\
Time whole models: inference, and with --backprop a training step too (forward, loss, backward, AdamW).

{COLUMNS}"""


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
    op.add_argument("--op", nargs="+", choices=OPS, default=OPS, metavar="NAME", help=f"{' or '.join(OPS)}, or both")
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
    group = parser.add_argument_group("problem, the presets by default; a flag changes all of them")
    group.add_argument(
        "--preset",
        nargs="+",
        choices=(*PRESETS, "all"),
        metavar="NAME",
        help=f"{', '.join(PRESETS)}, or all. Without it, flags from --size to --group-width make one problem of its "
        "own, and what they leave open is as in swin-t-1",
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
        help="ghost matrices: none, ghost_mul, ghost_add, both (default: add for swin-t-*, which is its lambda of 0, "
        "both for volo-d1)",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the models and their images."""
    group = parser.add_argument_group("problem")
    group.add_argument(
        "--model",
        nargs="+",
        default=["elsa_swin_tiny"],
        metavar="NAME",
        help="any model of timm or elsa_ext, one or more (default: elsa_swin_tiny)",
    )
    group.add_argument(
        "--baseline",
        "--baselines",
        dest="baselines",
        nargs="+",
        metavar="NAME",
        help="models of timm to compare with; `formula`: the same model on the formula in plain PyTorch; `none` "
        "(default: Swin of the same size, and formula)",
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
    group.add_argument("--layout", choices=LAYOUTS, default=LAYOUTS[0], help="of the maps (default: %(default)s)")


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
    group.add_argument("--backprop", action="store_true", help="measure forward and backward as well")
    group.add_argument("--repeats", type=number(int, 1), default=20, metavar="N", help="rounds (default: %(default)s)")
    group.add_argument(
        "--threads", type=number(int, 1), metavar="N", help="threads of torch (default: as many as it takes)"
    )
    group.add_argument("--device", metavar="NAME", help="such as cpu or cuda:1 (default: cuda if there is one, or cpu)")

    results = parser.add_argument_group("results")
    results.add_argument("--json", metavar="FILE", help="write everything that was measured, and on what machine")
    results.add_argument("--plot", metavar="FILE", help="draw the times as a PNG picture")
    results.add_argument(
        "--compare",
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
