"""The arguments of ``elsa-ext train``."""

import argparse

from ..argument_types import MOST_WORKERS, Parser, given, number, spec
from .recipe import RECIPES, recipe_arguments

DESCRIPTION = """\
Train an image classifier. Without arguments: elsa_swin_micro on the 1797 handwritten digits of scikit-learn.

The run folder receives
  checkpoint.pt   the weights after the last full epoch, what `elsa-ext classify` needs to use them, and what --resume
                  goes on from
  metrics.csv     one row per epoch
  curves.png      loss and accuracy over the epochs
  samples/        only for the digits: one test image of each, light on dark, to try `elsa-ext classify` on
Ctrl-C, SIGTERM and SIGHUP stop the training and keep them.
"""

EPILOG = """\
examples:
  elsa-ext train --data flowers --model elsa_swin_tiny --pretrained elsa_swin_tiny.pth --amp bf16
  elsa-ext train --resume runs/flowers-20250102-150405
  torchrun --nproc-per-node 8 --no-python elsa-ext train --config elsa_swin_tiny --data imagenet

layout of --data FOLDER:
  FOLDER/<class>/*           one fifth of every class, drawn with --seed, is the test set
or
  FOLDER/train/<class>/*     what to train on; "training" and "Train" do as well
  FOLDER/val/<class>/*       what to test on; also valid, validation, dev or eval, or test if there is none of these
Images are the files of all formats that Pillow reads, in folders of any depth. Names that begin with a dot and what
systems leave in folders (Thumbs.db, __MACOSX, ...) do not count; other files are left out, and counted in the output.
Pictures of more than 178956970 pixels are refused; the environment variable ELSA_MAX_IMAGE_PIXELS sets another limit.
"""

LAST_SEED = 2**32 - 1  # that numpy takes

DEFAULT = "(default: %(default)s)"


def add_train(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Add ``elsa-ext train``; ``given`` in its result has the names of what the user, or a recipe, has set."""
    parser = commands.add_parser(
        "train",
        help="train an image classifier",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.expand = expand
    add_run(parser)
    add_basics(parser)
    add_optimization(parser.add_argument_group("optimization"))
    add_augmentation(parser.add_argument_group("augmentation"))
    add_running(parser.add_argument_group("running"))


def expand(parser: Parser, words: list[str]) -> list[str]:
    """Put what the recipe says before what the user says, who thus has the last word, and note what is set."""
    words = [*recipe_arguments(parser, words), *words]
    actions = (parser._option_string_actions.get(word.partition("=")[0]) for word in words)
    parser.set_defaults(given=frozenset(action.dest for action in actions if action is not None))
    return words


def add_run(parser: Parser) -> None:
    """Add what is of one run alone, and not of several that are compared."""
    parser.add_argument(
        "--spec",
        type=spec,
        help='local operator in place of ELSA in elsa_swin_*, such as "qk+rb softmax window"; see docs/family.md',
    )
    parser.add_argument(
        "--output",
        type=given,
        metavar="DIR",
        help="run folder, new or without files of these names (default: runs/<data>-<date>-<time>)",
    )
    parser.add_argument(
        "--resume",
        type=given,
        nargs="?",
        const=True,
        metavar="DIR",
        help="go on with the run in DIR, with its own arguments, to the same bits as if it had not been stopped; "
        "without DIR: with that in --output, which is begun if there is none",
    )


def add_basics(parser: Parser) -> None:
    """Add what is trained, on what and for how long."""
    parser.add_argument(
        "--data",
        type=given,
        metavar="FOLDER",
        help="folder of images, see below, or fashion-mnist (default: the digits)",
    )
    parser.add_argument(
        "--model",
        type=given,
        default="elsa_swin_micro",
        metavar="NAME",
        help=f"elsa_swin_micro, _tiny, _small, _base, elsa_volo_d1 to _d5, or any model of timm {DEFAULT}",
    )
    parser.add_argument(
        "--image-size",
        type=number(int, 1),
        metavar="N",
        help="train on N x N pixels (default: the size that the model is made for)",
    )
    parser.add_argument(
        "--kernel-size",
        type=number(int, 1),
        metavar="N",
        help="side of the neighbourhoods of elsa_swin_* (default: 7); windows are those of the Swin",
    )
    parser.add_argument(
        "--limit",
        type=number(int, 1),
        metavar="N",
        help="images of each class to train on, always the same ones of the same data (default: all)",
    )
    parser.add_argument(
        "--epochs", type=number(int, 1), default=15, metavar="N", help=f"passes over the images {DEFAULT}"
    )
    parser.add_argument(
        "--batch-size",
        type=number(int, 1),
        default=32,
        metavar="N",
        help=f"images per step, over all processes {DEFAULT}",
    )
    parser.add_argument(
        "--lr",
        type=number(float, 1e-12),
        default=2e-3,
        metavar="X",
        help="highest learning rate; it warms up, and falls along a cosine (default: %(default)s, chosen for "
        "elsa_swin_micro)",
    )
    parser.add_argument(
        "--weight-decay", type=number(float, 0.0), default=0.05, metavar="X", help=f"weight decay {DEFAULT}"
    )
    parser.add_argument(
        "--seed",
        type=number(int, 0, LAST_SEED),
        default=0,
        metavar="N",
        help="seed of the weights, the order and the augmentation of the images: on the same machine the same seed "
        f"gives the same run {DEFAULT}",
    )
    parser.add_argument(
        "--config",
        type=given,
        metavar="FILE",
        help="recipe: a YAML file of these options without their dashes, which the command line overrides; or one of "
        f"{', '.join(RECIPES)}, the published ones",
    )


def add_optimization(parser: "argparse._ArgumentGroup") -> None:
    """Add how the weights are learnt."""
    parser.add_argument("--opt", type=given, default="adamw", metavar="NAME", help=f"optimizer of timm {DEFAULT}")
    parser.add_argument(
        "--momentum",
        type=number(float, 0.0, 1.0),
        default=0.9,
        metavar="X",
        help=f"of an optimizer that has one {DEFAULT}",
    )
    parser.add_argument(
        "--warmup-epochs",
        type=number(float, 0.0),
        metavar="X",
        help="epochs over which the learning rate rises (default: a tenth of all steps)",
    )
    parser.add_argument(
        "--warmup-lr", type=number(float, 0.0), metavar="X", help="learning rate to rise from (default: that of a step)"
    )
    parser.add_argument(
        "--min-lr", type=number(float, 0.0), default=0.0, metavar="X", help=f"learning rate to fall to {DEFAULT}"
    )
    parser.add_argument(
        "--layer-decay",
        type=number(float, 1e-12, 1.0),
        metavar="X",
        help="factor of the learning rate from each layer to the one before it",
    )
    parser.add_argument(
        "--accumulate",
        type=number(int, 1),
        default=1,
        metavar="N",
        help=f"batches that a step's images of each process are cut into, to need less memory {DEFAULT}",
    )
    parser.add_argument(
        "--clip-grad", type=number(float, 1e-12), metavar="X", help="largest norm of the gradient (default: any)"
    )
    parser.add_argument(
        "--amp", choices=("bf16", "fp16"), help="compute in 16 bits where that is safe; fp16 with a scaled loss"
    )
    parser.add_argument(
        "--ema",
        type=number(float, 0.0, 1.0),
        metavar="X",
        help="test and keep a moving average of the weights that decays by X per step, by less in the beginning",
    )
    parser.add_argument(
        "--drop-path", type=number(float, 0.0, 1.0), metavar="X", help="stochastic depth (default: that of the model)"
    )
    parser.add_argument(
        "--smoothing", type=number(float, 0.0, 1.0), default=0.0, metavar="X", help=f"of labels {DEFAULT}"
    )
    parser.add_argument(
        "--pretrained",
        type=given,
        metavar="FILE",
        help="weights to begin with: a checkpoint of elsa-ext, timm or the official code; the classifier may differ",
    )
    parser.add_argument(
        "--freeze",
        type=given,
        nargs="+",
        default=[],
        metavar="NAME",
        help="modules to keep as they are, such as layers.0",
    )


def add_augmentation(parser: "argparse._ArgumentGroup") -> None:
    """Add how images are changed before they are learnt from."""
    parser.add_argument(
        "--auto-augment", type=given, metavar="POLICY", help="of timm, such as rand-m9-mstd0.5-inc1 (folders alone)"
    )
    parser.add_argument(
        "--color-jitter", type=number(float, 0.0), default=0.4, metavar="X", help=f"(folders alone) {DEFAULT}"
    )
    parser.add_argument(
        "--crop-scale",
        type=number(float, 1e-12, 1.0),
        default=0.5,
        metavar="X",
        help=f"smallest crop, as a share of the image (folders alone) {DEFAULT}",
    )
    parser.add_argument(
        "--erasing", type=number(float, 0.0, 1.0), default=0.0, metavar="X", help=f"share of erased images {DEFAULT}"
    )
    parser.add_argument("--mixup", type=number(float, 0.0), default=0.0, metavar="X", help=f"alpha of mixup {DEFAULT}")
    parser.add_argument(
        "--cutmix", type=number(float, 0.0), default=0.0, metavar="X", help=f"alpha of CutMix {DEFAULT}"
    )


def add_running(parser: "argparse._ArgumentGroup") -> None:
    """Add what changes how the work is done, and not what comes of it."""
    parser.add_argument(
        "--device", type=given, metavar="NAME", help="such as cpu or cuda:1 (default: cuda if there is one, or cpu)"
    )
    parser.add_argument(
        "--workers",
        type=number(int, 0, MOST_WORKERS),
        default=0,
        metavar="N",
        help=f"processes that load images beside the training; 0 loads them in between {DEFAULT}",
    )
    parser.add_argument(
        "--parallel",
        choices=("ddp", "fsdp"),
        default="ddp",
        help=f"what the processes of torchrun keep: all of the model, or a part of it, by FSDP2 {DEFAULT}",
    )
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=False, help="torch.compile the model"
    )
    parser.add_argument(
        "--bad-images",
        choices=("stop", "skip"),
        default="stop",
        help=f"what to do if an image cannot be read; those that are skipped are named {DEFAULT}",
    )
    parser.add_argument(
        "--tensorboard",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="write the metrics for TensorBoard as well",
    )


RUNNING = frozenset({"data", "device", "workers", "parallel", "compile", "bad_images", "tensorboard"})
"""What a resumed run may have otherwise."""

NOT_KEPT = frozenset({"command", "config", "given", "output", "resume"})
"""What is about the call, and not about the run."""
