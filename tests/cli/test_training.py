"""What the options of ``elsa-ext train`` do to a training."""

import argparse
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from elsa_ext.cli.data.data_set import Data, Images
from elsa_ext.cli.parser import build_parser
from elsa_ext.cli.train.loop import Progress, Training
from elsa_ext.cli.train.report import Metrics
from torch import Tensor, nn

from .conftest import Result, write_images
from .test_errors import assert_refused
from .test_train import metrics

Command = Callable[..., Result]


class Small(nn.Module):
    """Two layers and noise."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 6)
        self.noise = nn.Dropout(0.2)
        self.head = nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden: Tensor = self.head(self.noise(self.body(images.flatten(1)).tanh()))
        return hidden

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": r"^body", "blocks": [(r"^head", None)]}


def training(*words: object, images: int = 24) -> Training:
    """A small training of the arguments of the command line, from the same weights every time."""
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randn(images, 1, 2, 2, generator=generator)
    labelled = [(picture, int(picture.sum() > 0)) for picture in pictures]
    data = Data(Images(labelled, torch.clone), Images(labelled[:6], torch.clone), ["a", "b", "c"], (1, 2, 2))
    torch.manual_seed(2)
    np.random.seed(2)  # of mixup
    model = Small()
    args = build_parser().parse_args(["train", "--batch-size", "8", "--epochs", "2", "--lr", "0.1", *map(str, words)])
    return Training(args, data, model, torch.device("cpu"))


def curve(*words: object, **options: int) -> list[Metrics]:
    return list(training(*words, **options).epochs())


def steps(found: Training) -> list[float]:
    """The learning rate of every step, which are taken."""
    rates: list[float] = []
    original = found.update

    def update() -> None:
        original()
        rates.append(found.progress.learning_rate)

    found.update = update  # type: ignore[method-assign]
    for _ in found.epochs():
        pass
    return rates


def test_rise_and_fall_of_the_learning_rate() -> None:
    cosine = [0.05 * (1 + np.cos(np.pi * step / 9)) for step in range(9)]
    assert steps(training("--epochs", 3, "--warmup-epochs", 0)) == pytest.approx(cosine)
    rates = steps(training("--epochs", 3, "--warmup-epochs", 1, "--warmup-lr", 0.01, "--min-lr", 0.02))
    assert rates[:3] == pytest.approx([0.01, 0.04, 0.07])
    assert rates[3:] == pytest.approx([0.02 + 0.8 * (rate - 0.0) for rate in cosine[3:]])
    assert steps(training("--epochs", 10, images=16))[:3] == pytest.approx(
        [0.05, 0.075, 0.05 * (1 + np.cos(np.pi / 10))], rel=0.4
    )


def test_single_step_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert steps(training("--epochs", 1, images=8)) == pytest.approx([0.1])
    assert caplog.messages == []


def test_parts_of_a_step_add_up() -> None:
    """Also where the last step is smaller: to rounding, since the noise is that of the images."""
    whole, parts = training("--opt", "sgd", images=22), training("--opt", "sgd", "--accumulate", 4, images=22)
    for found in (whole, parts):
        found.model.noise.p = 0.0  # type: ignore[union-attr, assignment]
    for expected, row in zip(whole.epochs(), parts.epochs(), strict=True):
        assert row.train_loss == pytest.approx(expected.train_loss, rel=1e-5)
        assert row.train_accuracy == expected.train_accuracy
    for expected_weight, weight in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(weight, expected_weight)


@pytest.mark.parametrize("amp", [(), ("--amp", "fp16")], ids=str)
def test_clipped_gradients(amp: tuple[str, ...]) -> None:
    """By their own length, not by that of scaled ones."""
    moved = []
    for words in (amp, (*amp, "--clip-grad", 1e-3)):
        found = training("--opt", "momentum", "--momentum", 0, "--weight-decay", 0, "--epochs", 1, *words, images=8)
        before = [weight.detach().clone() for weight in found.model.parameters()]
        list(found.epochs())
        pairs = zip(found.model.parameters(), before, strict=True)
        moved.append(float(sum((weight.detach() - old).square().sum() for weight, old in pairs) ** 0.5))
    assert moved[1] == pytest.approx(0.1 * 1e-3, rel=1e-3) and moved[0] > 10 * moved[1]


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_sixteen_bits(amp: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: set[torch.dtype] = set()
    original = Small.forward

    def forward(model: Small, images: Tensor) -> Tensor:
        logits = original(model, images)
        kinds.add(logits.dtype)
        return logits

    expected = curve()
    monkeypatch.setattr(Small, "forward", forward)
    found = curve("--amp", amp)
    assert kinds == {torch.bfloat16 if amp == "bf16" else torch.float16}
    assert found[-1].train_loss == pytest.approx(expected[-1].train_loss, rel=0.05)
    assert found[-1].train_loss != expected[-1].train_loss


def test_average() -> None:
    """The weights that are tested and kept are the average of those of every step."""
    found = training("--ema", 0.5, "--epochs", 1)
    average: dict[str, Tensor] = {}
    original = found.update

    def update() -> None:
        original()
        state = {name: tensor.clone() for name, tensor in found.model.state_dict().items()}
        step = found.progress.step  # this one's decay: timm's average warms up
        decay = 0.0 if step == 0 else min(0.5, 1 - (1 + step) ** (-2 / 3))
        for name, tensor in state.items():
            average[name] = tensor if step == 0 else average[name].lerp(tensor, 1 - decay)

    found.update = update  # type: ignore[method-assign]
    [row] = found.epochs()
    assert found.tested is not found.model
    for name, tensor in found.tested.state_dict().items():
        torch.testing.assert_close(tensor, average[name])
    assert not torch.equal(average["head.weight"], found.model.head.weight)  # type: ignore[union-attr, arg-type]
    found.tested.load_state_dict(found.model.state_dict())
    assert found.test(argparse.Namespace(update=lambda: None))[0] != row.test_loss


@pytest.mark.slow
def test_compiled() -> None:
    """To rounding, and kept under the names of the model itself."""
    found, eager = training("--compile", "--ema", 0.5, images=22), training("--ema", 0.5, images=22)
    for each in (found, eager):
        each.model.noise.p = 0.0  # type: ignore[union-attr, assignment]
    for row, expected in zip(found.epochs(), eager.epochs(), strict=True):
        assert row.train_loss == pytest.approx(expected.train_loss, rel=1e-4)
        assert row.test_loss == pytest.approx(expected.test_loss, rel=1e-4)
    assert {*found.model.state_dict()} == {*Small().state_dict()}


def test_frozen_modules() -> None:
    found = training("--freeze", "body", "noise", "--weight-decay", 0.5)
    before = {name: tensor.clone() for name, tensor in found.model.state_dict().items()}
    noisy: list[bool] = []
    noise: Any = found.model.noise
    noise.register_forward_hook(lambda *_: noisy.append(noise.training))
    list(found.epochs())
    after = found.model.state_dict()
    assert torch.equal(before["body.weight"], after["body.weight"])
    assert not torch.equal(before["head.weight"], after["head.weight"])
    assert noisy and not any(noisy)


def test_nothing_is_dropped_while_testing() -> None:
    found, bar = training(), argparse.Namespace(update=lambda: None)
    assert found.test(bar) == found.test(bar)


def test_options_of_the_optimizer() -> None:
    """All matrices decay, and no bias."""
    found = training("--opt", "momentum", "--momentum", 0.3, "--weight-decay", 0.5)
    for group in found.optimizer.param_groups:
        assert group["momentum"] == 0.3
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.5 if parameter.ndim > 1 else 0.0)


def test_row_of_an_epoch() -> None:
    found = training()
    found.progress = Progress(2, 3, loss=6.0, right=3.0, images=4.0, seconds=2.0, learning_rate=0.1)
    assert found.row(0.5, 0.25, test_seconds=3.0) == Metrics(2, 1.5, 0.75, 0.5, 0.25, 5.0, 0.1, 2.0)


def test_layer_decay() -> None:
    found = training(
        "--layer-decay", 0.5, "--opt", "momentum", "--momentum", 0, "--weight-decay", 0, "--epochs", 1, images=8
    )
    scales = {group["lr_scale"] for group in found.optimizer.param_groups}
    assert scales == {1.0, 0.5}
    rates = steps(found)
    assert rates == pytest.approx([0.1])
    assert {round(group["lr"], 6) for group in found.optimizer.param_groups} == {0.1, 0.05}


def test_smoothing_and_mixing_change_the_loss() -> None:
    plain, smooth = curve("--lr", 1e-9), curve("--lr", 1e-9, "--smoothing", 0.5)
    assert plain[0].test_loss == pytest.approx(smooth[0].test_loss, rel=1e-4)
    assert plain[0].train_loss != pytest.approx(smooth[0].train_loss, rel=1e-3)
    for flag in ("--mixup", "--cutmix"):
        mixed = curve("--lr", 1e-9, flag, 1)
        assert mixed[0].train_loss != pytest.approx(plain[0].train_loss, rel=1e-3)
        assert mixed[0].test_loss == pytest.approx(plain[0].test_loss, rel=1e-4)


def test_labels_are_smoothed_once() -> None:
    """With this alpha every image is mixed with nothing, or is another one."""
    losses = []
    for words in ((), ("--mixup", 1e-3)):
        found = training("--lr", 1e-9, "--smoothing", 0.5, *words)
        found.model.noise.p = 0.0  # type: ignore[union-attr, assignment]
        losses.append(next(found.epochs()).train_loss)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--opt", "adamx"], ["--opt adamx: timm has no such optimizer; did you mean", "adam"]),
        (["--freeze", "layer.0"], ["--freeze layer.0: the model has no module of this name; it has layers.0"]),
        (["--opt", "sgd", "--momentum", "0"], ["--opt sgd: Nesterov momentum requires a momentum"]),
        (["--freeze", "patch_embed", "layers", "norm", "head"], ["leaves nothing to train"]),
        (["--min-lr", "1"], ["--min-lr 1 is above --lr 0.002, the highest"]),
        (["--warmup-lr", "0.01"], ["--warmup-lr 0.01 is above --lr 0.002, the highest"]),
        (["--accumulate", "3"], ["--batch-size 32 is not a multiple of 3: --accumulate 3"]),
        (["--mixup", "0.8", "--batch-size", "9"], ["is not a multiple of 2: pairs of images"]),
        (["--parallel", "fsdp"], ["--parallel fsdp needs several processes: torchrun"]),
        (["--pretrained", "nowhere.pth"], ["nowhere.pth: No such file"]),
        (["--auto-augment", "rand-m9"], ["--auto-augment: for folders of images alone"]),
        (["--data", "fashion-mnist"], ["--data fashion-mnist: its files are in none of", "apt install"]),
        (["--tensorboard"], ["--tensorboard: not installed: pip install"]),
    ],
    ids=" ".join,
)
def test_refused(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], parts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("elsa_ext.cli.data.idx.PLACES", ("data/FashionMNIST/raw",))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert_refused(command("train", "--image-size", 8, *arguments), *parts)
    assert list(tmp_path.iterdir()) == []


def test_policy_that_timm_does_not_know(command: Command, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", "red tan", 2)
    assert_refused(command("train", "--data", images, "--auto-augment", "nonsense-m9"), "timm has no such policy")


def test_tensorboard(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[Any, ...]] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            written.append((folder, purge_step))

        def add_scalar(self, *values: object) -> None:
            written.append(values)

        def flush(self) -> None:
            pass

    module = types.SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    images, run = write_images(tmp_path / "images", "red tan", 2), tmp_path / "run"
    arguments = ("--data", images, "--image-size", 8, "--epochs", 1, "--tensorboard", "--output", run)
    assert command("train", *arguments).code == 0
    assert written[0] == (str(run / "tensorboard"), 1)
    assert {name: str(value) for name, value, _ in written[1:]} == metrics(run)[0]


# Bad images.


def test_skipped_images(command: Command, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images" / "train", "red tan", 6).parent
    write_images(images / "val", "red tan", 3)
    for bad in ("train/red/0.png", "train/tan/5.png", "val/tan/1.png"):
        (images / bad).write_bytes(b"nothing")
    run = tmp_path / "run"
    arguments = ("--data", images, "--image-size", 8, "--batch-size", 4, "--epochs", 2, "--output", run)
    assert_refused(command("train", *arguments), "cannot read", "as an image")
    result = command("train", *arguments, "--bad-images", "skip")
    assert result.code == 0
    lines = result.err.splitlines()
    assert len(lines) == 3  # each is named once
    for line, bad in zip(lines, ("train/red/0.png", "train/tan/5.png", "val/tan/1.png"), strict=True):
        assert line.startswith(f"elsa-ext train: skipped: cannot read {images / bad} as an image")
    assert "skipped 3 images that cannot be read" in result.out
    assert float(metrics(run)[0]["test_accuracy"]) * 5 == pytest.approx(
        round(float(metrics(run)[0]["test_accuracy"]) * 5)
    )


@pytest.mark.parametrize("part", ["train", "val"])
def test_nothing_but_bad_images(command: Command, tmp_path: Path, part: str) -> None:
    images = write_images(tmp_path / "images" / "train", "red tan", 2).parent
    write_images(images / "val", "red tan", 1)
    for file in (images / part).rglob("*.png"):
        file.write_bytes(b"nothing")
    result = command("train", "--data", images, "--image-size", 8, "--epochs", 1, "--bad-images", "skip")
    assert_refused(result, "none of the", "images can be read: cannot read")
