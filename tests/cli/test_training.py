"""What the options of ``elsa-ext train`` do to a training."""

import argparse
import copy
import gzip
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from elsa_ext.cli.checkpoint import load
from elsa_ext.cli.data import data_set
from elsa_ext.cli.data.data_set import Data, Images
from elsa_ext.cli.data.idx import read_idx
from elsa_ext.cli.parser import build_parser
from elsa_ext.cli.train.loop import Progress, Training
from elsa_ext.cli.train.pretrained import load_pretrained, renamed
from elsa_ext.cli.train.report import Metrics
from elsa_ext.models import convert
from models.test_checkpoint import official_state_dict, small_model
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


# Weights to begin with.


def test_weights_of_a_run(command: Command, trained: Path, tmp_path: Path) -> None:
    """All but the classifier for other classes; to go on with the run needs the file no more."""
    shutil.copy(trained / "checkpoint.pt", tmp_path / "first.pt")
    images = write_images(tmp_path / "images", "red tan lime", 2)
    run = tmp_path / "run"
    arguments = ("--image-size", 32, "--lr", 1e-12, "--epochs", 1, "--pretrained", tmp_path / "first.pt")
    result = command("train", "--data", images, *arguments, "--output", run)
    assert result.code == 0
    assert "as they were before: head.fc.weight, head.fc.bias" in result.out
    found, expected = (load(str(path / "checkpoint.pt")).state_dict for path in (run, trained))
    for name, tensor in expected.items():
        if not name.startswith("head."):
            torch.testing.assert_close(found[name], tensor)
    (tmp_path / "first.pt").unlink()
    assert command("train", "--resume", run).code == 0


def test_weights_of_timm(tmp_path: Path) -> None:
    """ELSA stays as it was; what is of timm's Swin comes from there, of another window size, too."""
    shape = {"patch_size": 2, "embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2), "num_classes": 4}
    swin = timm.create_model("swin_tiny_patch4_window7_224", img_size=32, window_size=8, **shape)
    torch.save({"state_dict_ema": swin.state_dict(), "epoch": 3}, tmp_path / "swin.pth")
    model = timm.create_model("elsa_swin_micro", **{**shape, "num_classes": 2})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    told = load_pretrained(model, str(tmp_path / "swin.pth"))
    after = model.state_dict()
    theirs = swin.state_dict()
    assert torch.equal(after["layers.0.blocks.0.mlp.fc1.weight"], theirs["layers.0.blocks.0.mlp.fc1.weight"])
    assert torch.equal(after["head.fc.weight"], before["head.fc.weight"])
    kept = [
        name
        for name in after
        if torch.equal(after[name], before[name]) and not torch.equal(after[name], theirs.get(name, after[name] + 1))
    ]
    assert any(".attn." in name for name in kept) and "as they were before" in told


def test_weights_of_timm_for_other_operators(tmp_path: Path) -> None:
    """They are those of `convert`; what an operator has beside them stays as it was, and is named."""
    shape = {"patch_size": 2, "embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2), "num_classes": 2}
    swin = timm.create_model("swin_tiny_patch4_window7_224", img_size=32, window_size=4, **shape)
    nn.init.normal_(swin.layers[0].blocks[0].attn.relative_position_bias_table)
    torch.save(swin.state_dict(), tmp_path / "swin.pth")
    for spec, kept in (
        ("qk+rb softmax window", ""),
        ("qr none neighborhood", "r_key"),
        ("rb none window heads=C", "r_bias"),
    ):
        model = timm.create_model("elsa_swin_micro", spec=spec, kernel_size=3, **shape)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        told = load_pretrained(model, str(tmp_path / "swin.pth"))
        size = None if "window" in spec else 3
        expected = convert(copy.deepcopy(swin), [0], to=spec, kernel_size=size).state_dict()
        for name, tensor in model.state_dict().items():
            stays = bool(kept) and name.endswith(kept)
            torch.testing.assert_close(tensor, before[name] if stays else expected[name], rtol=0, atol=0)
        assert told.endswith(f"; as they were before: layers.0.blocks.0.attn.{kept}" if kept else "swin.pth")


def test_official_weights(tmp_path: Path) -> None:
    source, model = small_model(), small_model()
    torch.save(official_state_dict(source), tmp_path / "official.pth")
    assert " as they were before" not in load_pretrained(model, str(tmp_path / "official.pth"))
    for name, tensor in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)


def test_position_embeddings_of_another_size() -> None:
    model = nn.Module()
    model.pos_embed = nn.Parameter(torch.zeros(1, 4, 6, 8))
    embeddings = torch.randn(1, 1, 1, 8)
    found = renamed(model, {"pos_embed": embeddings})["pos_embed"]
    torch.testing.assert_close(found, embeddings.expand(1, 4, 6, 8))


def test_weights_of_another_model(tmp_path: Path) -> None:
    model = timm.create_model("resnet10t", num_classes=2)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    other = timm.create_model("resnet14t", num_classes=2)
    torch.save(other.state_dict(), tmp_path / "other.pth")
    with pytest.raises(Exception, match="does not fit the model: layer"):
        load_pretrained(model, str(tmp_path / "other.pth"))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name])


# Data sets by name.


def write_idx(folder: Path, count: int, zipped: bool, labels: int = 10) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0)
    for part, images in (("train", count), ("t10k", 10)):
        pixels = noise.integers(0, 256, (images, 28, 28), np.uint8)
        sizes = b"".join(size.to_bytes(4, "big") for size in pixels.shape)
        files = {
            f"{part}-images-idx3-ubyte": b"\0\0\x08\x03" + sizes + pixels.tobytes(),
            f"{part}-labels-idx1-ubyte": b"\0\0\x08\x01" + sizes[:4] + bytes(i % labels for i in range(images)),
        }
        for name, content in files.items():
            (folder / (f"{name}.gz" if zipped else name)).write_bytes(gzip.compress(content) if zipped else content)
    return folder


def test_every_image_has_its_label(tmp_path: Path) -> None:
    train, test = read_idx(write_idx(tmp_path, 20, True))
    noise = np.random.default_rng(0)
    for found, count in ((train, 20), (test, 10)):
        assert np.array_equal([pixels for pixels, _ in found], noise.integers(0, 256, (count, 28, 28), np.uint8))
        assert [label for _, label in found] == [number % 10 for number in range(count)]


@pytest.mark.parametrize(("name", "sides"), [("mnist", {True}), ("fashion", {True, False})])
def test_clothes_alone_are_mirrored(name: str, sides: set[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.zeros((28, 28), np.uint8)
    pixels[:, :14] = 255
    monkeypatch.setattr(data_set, "read_idx", lambda _: ([(pixels, 0)], [(pixels, 0)]))
    data = data_set.idx(Path(name), {"input_size": (3, 8, 8), "mean": (0, 0, 0), "std": (1, 1, 1)})
    assert {bool(data.train[0][0][..., :4].mean() > 0.5) for _ in range(20)} == sides


@pytest.mark.parametrize("zipped", [True, False])
def test_fashion_mnist(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    monkeypatch.chdir(tmp_path)
    write_idx(Path("data/FashionMNIST/raw"), 20, zipped)
    arguments = ("--image-size", 8, "--epochs", 1, "--erasing", 0.5)
    result = command("train", "--data", "fashion-mnist", *arguments, "--output", "run")
    assert (result.code, result.err) == (0, "")
    assert "fashion-mnist: 20 images to train on, 10 to test on" in result.out
    assert load("run/checkpoint.pt").classes[0] == "T-shirt/top"
    result = command("train", "--data", "data", *arguments, "--output", "again")
    assert result.code == 0 and "data: 20 images" in result.out
    assert load("again/checkpoint.pt").classes == load("run/checkpoint.pt").classes


def test_mnist_and_damaged_files(command: Command, tmp_path: Path) -> None:
    root = write_idx(tmp_path / "mnist", 20, True)
    arguments = ("train", "--data", root, "--image-size", 8, "--epochs", 1, "--output", tmp_path / "run")
    assert command(*arguments).code == 0
    assert load(str(tmp_path / "run" / "checkpoint.pt")).classes == [str(digit) for digit in range(10)]
    images = root / "train-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    images.write_bytes(whole[: len(whole) // 2])
    assert_refused(command(*arguments[:-1], tmp_path / "other"), "train-images-idx3-ubyte.gz is damaged")
    images.write_bytes(gzip.compress(gzip.decompress(whole)[:-1]))
    assert_refused(command(*arguments[:-1], tmp_path / "other"), "is damaged, or no idx file")
    (root / "t10k-labels-idx1-ubyte.gz").unlink()
    images.write_bytes(whole)
    assert_refused(command(*arguments[:-1], tmp_path / "other"), "no such file: ", "nor with .gz")
