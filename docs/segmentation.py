"""Train UPerNet on ELSA-Swin-T with the left half of scikit-image's tissue section, and segment both halves."""

import argparse
from pathlib import Path

import elsa_ext.models  # noqa: F401  registers elsa_swin_tiny with timm
import segmentation_models_pytorch as smp
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from skimage.color import rgb2hed
from skimage.data import immunohistochemistry
from skimage.filters import gaussian, threshold_otsu
from torch import Tensor, nn

CLASSES = {"background": "whitesmoke", "nuclei": "royalblue", "stained tissue": "peru"}
CROP, BATCH = 128, 4


def load_section() -> tuple[Tensor, Tensor]:
    """Return the picture as (3, H, W) around 0, and the class of every pixel (H, W) by its two dyes, smoothed."""
    picture = immunohistochemistry()
    dyes = gaussian(rgb2hed(picture), sigma=2, channel_axis=2)
    classes = torch.zeros(picture.shape[:2], dtype=torch.int64)
    for number, dye in ((1, dyes[..., 0]), (2, dyes[..., 2])):  # where both are, it is stained tissue
        classes[torch.from_numpy(dye > threshold_otsu(dye))] = number
    return torch.from_numpy(picture).permute(2, 0, 1) / 127.5 - 1, classes


def random_crop(picture: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Return a square of the picture and of its classes, flipped by chance."""
    top, left = (int(torch.randint(size - CROP + 1, ())) for size in classes.shape)
    square = (..., slice(top, top + CROP), slice(left, left + CROP))
    axes = [axis for axis in (-2, -1) if torch.rand(()) < 0.5]
    return picture[square].flip(axes), classes[square].flip(axes)


def train(model: nn.Module, picture: Tensor, classes: Tensor, steps: int) -> None:
    """Fit ``model`` to random crops of ``picture``."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-4, total_steps=steps)
    model.train()
    print("step   loss  right pixels")
    for step in range(1, steps + 1):
        images, targets = map(torch.stack, zip(*(random_crop(picture, classes) for _ in range(BATCH)), strict=True))
        logits = model(images)
        loss = nn.functional.cross_entropy(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step == 1 or step % 10 == 0 or step == steps:
            right = (logits.argmax(1) == targets).double().mean()
            print(f"{step:4d}  {loss.item():5.3f}  {right:12.1%}", flush=True)


@torch.inference_mode()
def segment(model: nn.Module, picture: Tensor) -> Tensor:
    """Return the likeliest class of every pixel."""
    model.eval()
    return model(picture[None])[0].argmax(0)


def scores(truth: Tensor, found: Tensor) -> str:
    """Return the share of right pixels, and the intersection over union of every class."""
    parts = [f"{(truth == found).double().mean():.1%} of the pixels right, IoU"]
    for number, name in enumerate(CLASSES):
        there, said = truth == number, found == number
        parts.append(f"{name} {(there & said).sum() / (there | said).sum():.2f}")
    return " ".join(parts)


def draw(path: Path, picture: Tensor, truth: Tensor, found: Tensor) -> None:
    """Draw the picture, its classes, and those that were found."""
    figure = Figure(figsize=(10.5, 4.2), dpi=80, layout="constrained")
    panels = figure.subplots(1, 3)
    shown = {"picture": (picture.movedim(0, 2) + 1) / 2, "what is there": truth, "what was found": found}
    for axes, (title, content) in zip(panels, shown.items(), strict=True):
        axes.imshow(content.numpy(), cmap=ListedColormap(list(CLASSES.values())), interpolation="nearest")
        axes.axvline(truth.shape[1] / 2, color="black", linestyle="--", linewidth=1)
        axes.set_title(title)
        axes.set_xticks([truth.shape[1] / 4, truth.shape[1] * 3 / 4], ["trained on", "never seen"])
        axes.tick_params(length=0)
        axes.set_yticks([])
    patches = [Patch(facecolor=colour, edgecolor="black", label=name) for name, colour in CLASSES.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False)
    figure.savefig(path, format="png")


def main() -> None:
    """Train, segment, score and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60, help="of training (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, default=Path("tissue.png"), help="picture to write (default: %(default)s)"
    )
    args = parser.parse_args()
    if not args.output.parent.is_dir():
        parser.error(f"--output: no folder {args.output.parent}")

    torch.manual_seed(0)
    picture, classes = load_section()
    model = smp.create_model(
        "upernet",
        encoder_name="tu-elsa_swin_tiny",
        encoder_weights=None,
        classes=len(CLASSES),
        drop_path_rate=0.0,
    )
    half = classes.shape[1] // 2
    train(model, picture[..., :half], classes[:, :half], args.steps)
    found = segment(model, picture)
    print(f"trained on: {scores(classes[:, :half], found[:, :half])}")
    print(f"never seen: {scores(classes[:, half:], found[:, half:])}")
    draw(args.output, picture, classes, found)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
