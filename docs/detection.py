"""Train Mask R-CNN on ELSA-Swin-T with the upper half of scikit-image's picture of coins, and find those of both."""

import argparse
from pathlib import Path

import torch
from elsa_ext.models.detection import mask_rcnn_elsa_swin_tiny
from matplotlib.figure import Figure
from scipy.ndimage import binary_fill_holes
from skimage.data import coins
from skimage.filters import sobel
from skimage.measure import label
from skimage.morphology import disk, opening
from skimage.segmentation import clear_border, watershed
from torch import Tensor, nn
from torchvision.ops import box_iou, masks_to_boxes
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes, Image, Mask
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

UPPER = 154  # rows that the model is trained on: two of the four rows of coins


def load_coins() -> tuple[Tensor, Tensor]:
    """Return the picture as (3, H, W) in 0 … 255, and one mask (H, W) per coin, by the watershed of its edges."""
    picture = coins()
    certain = (picture < 30) + 2 * (picture > 150)
    instances = label(clear_border(opening(binary_fill_holes(watershed(sobel(picture), certain) == 2), disk(3))))
    masks = torch.from_numpy(instances) == torch.arange(1, instances.max() + 1)[:, None, None]
    return torch.from_numpy(picture).expand(3, -1, -1), masks


def boxes_of(masks: Tensor) -> Tensor:
    """Return the boxes (N, 4) around ``masks``, whose right and lower edges are beyond the last pixel."""
    return masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1])


def train(model: nn.Module, picture: Tensor, masks: Tensor, steps: int) -> None:
    """Fit ``model`` to flips of ``picture`` in changing light, and print the mean losses since the last print."""
    augment = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.ColorJitter(brightness=0.3, contrast=0.3),
            v2.ToDtype({Image: torch.float32, "others": None}, scale=True),
        ]
    )
    target = {
        "boxes": BoundingBoxes(boxes_of(masks), format="XYXY", canvas_size=picture.shape[1:]),
        "labels": torch.ones(len(masks), dtype=torch.int64),  # 0 is the background
        "masks": Mask(masks.to(torch.uint8)),
    }
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-4, total_steps=steps)
    recent: list[Tensor] = []
    model.train()
    print("step   loss  classes  boxes  masks  RPN objects  RPN boxes")
    for step in range(1, steps + 1):
        image, changed = augment(Image(picture), target)
        losses = torch.stack(list(model([image], [changed]).values()))
        recent.append(losses.detach())
        optimizer.zero_grad()
        losses.sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step == 1 or step % 10 == 0 or step == steps:
            means = torch.stack(recent).mean(0).tolist()
            parts = (f"{mean:{width}.3f}" for mean, width in zip(means, (7, 5, 5, 11, 9), strict=True))
            print(f"{step:4d}  {sum(means):5.3f}  {'  '.join(parts)}", flush=True)
            recent.clear()


@torch.inference_mode()
def find(model: nn.Module, picture: Tensor) -> dict[str, Tensor]:
    """Return the boxes, scores and masks of what is more likely a coin than not."""
    model.eval()
    found = model([picture / 255])[0]
    return {name: value[found["scores"] > 0.5] for name, value in found.items()}


def count(truth: Tensor, found: Tensor) -> str:
    """Say how many of the boxes ``truth`` were found."""
    overlap = box_iou(truth, found) > 0.5
    upper = truth[:, 3] < UPPER
    hits = overlap.any(1)
    return (
        f"{hits[upper].sum()} of {upper.sum()} coins trained on, {hits[~upper].sum()} of {(~upper).sum()} never seen, "
        f"{(~overlap.any(0)).sum()} boxes around something else"
    )


def draw(path: Path, picture: Tensor, truth: Tensor, found: dict[str, Tensor]) -> None:
    """Draw the true masks and boxes beside those that were found."""
    figure = Figure(figsize=(8.4, 3.5), dpi=100, layout="constrained")
    panels = figure.subplots(1, 2)
    shown = {
        "what is there": (truth, boxes_of(truth)),
        "what was found": (found["masks"][:, 0] > 0.5, found["boxes"]),
    }
    for axes, (title, (masks, boxes)) in zip(panels, shown.items(), strict=True):
        coloured = draw_segmentation_masks(picture.contiguous(), masks.any(0), alpha=0.45, colors="deepskyblue")
        axes.imshow(draw_bounding_boxes(coloured, boxes, colors="yellow").movedim(0, 2).numpy())
        axes.axhline(UPPER, color="white", linestyle="--", linewidth=1)
        axes.set_title(f"{title}: {len(boxes)} coins", fontsize=10)
        axes.set_yticks(
            [UPPER / 2, (UPPER + picture.shape[1]) / 2], ["trained on", "never seen"], rotation=90, va="center"
        )
        axes.tick_params(length=0, labelsize=8)
        axes.set_xticks([])
    for (left, top, *_), score in zip(found["boxes"].tolist(), found["scores"].tolist(), strict=True):
        panels[1].text(left, top - 3, f"{score:.2f}", color="yellow", fontsize=7)
    figure.savefig(path, format="png")


def main() -> None:
    """Train, find, count and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60, help="of training, one picture each (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, default=Path("coins.png"), help="picture to write (default: %(default)s)"
    )
    args = parser.parse_args()
    if not args.output.parent.is_dir():
        parser.error(f"--output: no folder {args.output.parent}")

    torch.manual_seed(0)
    picture, masks = load_coins()
    height, width = picture.shape[1:]
    model = mask_rcnn_elsa_swin_tiny(
        num_classes=2,
        drop_path_rate=0.0,
        min_size=UPPER,  # the half as it is, neither enlarged nor reduced
        max_size=width,
        box_nms_thresh=0.3,  # coins do not overlap
        box_batch_size_per_image=64,  # enough for a dozen coins, and faster than the default of 512
    )
    upper = boxes_of(masks)[:, 3] < UPPER
    train(model, picture[:, :UPPER], masks[upper, :UPPER], args.steps)
    model.transform.min_size = (height,)
    found = find(model, picture)
    print(count(boxes_of(masks), found["boxes"]))
    draw(args.output, picture, masks, found)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
