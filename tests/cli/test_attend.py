"""``elsa-ext attend``: the numbers are those of the layer, the picture can be read, and mistakes are told."""

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from elsa_ext.cli.attend import picture as drawing
from elsa_ext.cli.attend import scene as choosing
from elsa_ext.cli.attend.arguments import MOST_HEADS, MOST_PIXELS
from elsa_ext.cli.attend.layers import find_layers, inputs_of, look
from elsa_ext.cli.attend.scene import Scene, Sight, cells_of_outputs, most_changed, scene_of, sight
from elsa_ext.cli.checkpoint import Checkpoint, load_model
from elsa_ext.cli.data.images import load_image
from elsa_ext.nn import ELSA, LocalAttention, attention_weights
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from timm.data import create_transform
from torch import Tensor, nn

from .conftest import Result
from .test_errors import assert_refused

Command = Callable[..., Result]
SWIN = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": (2, 1), "num_heads": (2, 4)}


def swin() -> nn.Module:
    """timm's own, with shifted windows in its second block."""
    return timm.create_model("swin_tiny_patch4_window7_224", **SWIN).eval()


def captured(model: nn.Module, module: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The input and the output of a module in a forward of its model."""
    kept: list[Any] = []
    hook = module.register_forward_hook(lambda _, inputs, output: kept.append((inputs[0], output)))
    with torch.no_grad():
        model(images)
    hook.remove()
    return kept[0]


@pytest.mark.thorough
def test_numbers_are_those_of_the_layer(command: Command, trained: Path, picture: Path, tmp_path: Path) -> None:
    """The pixel 5, 30 of 32 x 32 is in the cell 2, 15 of 16 x 16, whose taps reach from -1 to 5 and from 12 to 18."""
    arguments = ("--at", "5,30", "16,16", "--channels", 3, 20, "--heads", 1, "--json", "--output", tmp_path / "x.png")
    result = command("attend", trained / "checkpoint.pt", picture, *arguments)
    assert (result.code, result.err) == (0, "")
    document = json.loads(result.out)
    checkpoint, model = load_model(str(trained / "checkpoint.pt"))
    images = create_transform(**checkpoint.input)(load_image(picture)).unsqueeze(0)
    layer: Any = model.get_submodule("layers.0.blocks.0.attn")
    _, logits = captured(model, layer.attn, images)  # the layers are called themselves where one is hooked
    first, second = document["pixels"]
    assert (document["layer"], document["heads"], document["channels"]) == ("layers.0.blocks.0.attn", [1], [3, 20])
    assert (document["picture"], document["map"]) == ([32, 32], [16, 16])
    assert (first["pixel"], first["cell"]) == ([5, 30], [2, 15])
    assert (first["rows"], first["columns"]) == ([*range(-1, 6)], [*range(12, 19)])
    for seen in (first, second):
        weights = logits[0, :, seen["cell"][0], seen["cell"][1]].view(2, 49).softmax(1).view(2, 7, 7)
        added = layer.ghost_head[0, [3, 20]]
        torch.testing.assert_close(torch.tensor(seen["weights"]), weights[1:], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(torch.tensor(seen["filters"]), (weights + added).detach(), rtol=1e-4, atol=1e-6)
    with Image.open(tmp_path / "x.png") as drawn:
        assert drawn.size[0] > 600


@pytest.mark.thorough
def test_defaults(
    command: Command, trained: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = command("attend", trained / "checkpoint.pt", picture)
    shown = "layers.0.blocks.0.attn, 4 pixels, 2 heads, 8 of 32 channels"
    assert result == (0, f"wrote attend.png: {shown}\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["attend.png"]


def test_list(command: Command, trained: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = command("attend", trained / "checkpoint.pt", picture, "--layer", "list")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == "layers.0.blocks.0.attn  ELSA: 2 heads, 7 x 7 taps on a map of 16 x 16"
    assert lines[-1] == "layers.2.blocks.0.attn  WindowAttention: 8 heads, 4 x 4 taps on a map of 4 x 4"
    names = [line.split()[0] for line in lines]
    document = json.loads(command("attend", trained / "checkpoint.pt", picture, "--layer", "list", "--json").out)
    assert [layer["name"] for layer in document["layers"]] == names


@pytest.mark.thorough
def test_layer_of_another_kind(command: Command, trained: Path, picture: Path, tmp_path: Path) -> None:
    arguments = ("--layer", "layers.2.blocks.0.attn", "--grid", 1, "--output", tmp_path / "x.png")
    result = command("attend", trained / "checkpoint.pt", picture, *arguments)
    assert result == (0, f"wrote {tmp_path}/x.png: layers.2.blocks.0.attn, 1 pixel, 8 heads\n", "")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--layer", "layers.7"], ["elsa_swin_micro has no local layer 'layers.7'", "layers.0.blocks.0.attn, "]),
        (["--at", "32,0"], ["--at 32,0 is outside of the 32 x 32 pixels"]),
        (["--at", "3"], ["--at", "ROW,COL", "'3'"]),
        (["--at", *["1,1"] * 17], ["--at has 17 pixels, and a picture shows 16"]),
        (["--at", "1,1", "--grid", "2"], ["--grid"]),
        (["--grid", "5"], ["--grid", "from 1 to 4"]),
        (["--heads", "2"], ["--heads 2: the layer has heads 0 to 1"]),
        (["--channels", "32"], ["--channels 32: the layer has channels 0 to 31"]),
        (["--layer", "layers.2.blocks.0.attn", "--channels", "1"], ["--channels", "no ghost matrices"]),
        (["--output", "nowhere/x.png"], ["nowhere/x.png"]),
    ],
    ids=lambda value: " ".join(value[:2]),
)
def test_mistakes(
    command: Command,
    trained: Path,
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    parts: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(command("attend", trained / "checkpoint.pt", picture, *arguments), "elsa-ext attend: ", *parts)
    assert list(tmp_path.iterdir()) == []


def test_model_without_local_layers(command: Command, picture: Path, tmp_path: Path) -> None:
    kwargs = {"img_size": 32, "depth": 1, "num_classes": 2}
    model = timm.create_model("vit_tiny_patch16_224", **kwargs)
    data = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    checkpoint = Checkpoint("vit_tiny_patch16_224", kwargs, ["a", "b"], data, 1, {}, model.state_dict())
    checkpoint.save(tmp_path / "x.pt")
    assert_refused(command("attend", tmp_path / "x.pt", picture), "vit_tiny_patch16_224 has no local layer")


@pytest.mark.thorough
def test_weights_that_are_not_finite(command: Command, trained: Path, picture: Path, tmp_path: Path) -> None:
    checkpoint, _ = load_model(str(trained / "checkpoint.pt"))
    checkpoint.state_dict["layers.0.blocks.0.attn.ghost_head"].fill_(torch.nan)
    checkpoint.save(tmp_path / "x.pt")
    result = command("attend", tmp_path / "x.pt", picture, "--output", tmp_path / "x.png")
    assert_refused(result, "the weights of layers.0.blocks.0.attn are not finite")
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("block", [0, 1])
def test_windows_of_timm(block: int) -> None:
    """What timm's softmax gives, window by window, is what is shown of every pixel of the window."""
    model, images = swin(), torch.randn(1, 3, 32, 32)
    inside: Any = model.get_submodule(f"layers.0.blocks.{block}")
    for parameter in inside.parameters():
        nn.init.normal_(parameter, std=0.3)
    inside.attn.fused_attn = False
    _, maps = captured(model, inside.attn.softmax, images)  # (windows, heads, pixels, taps)
    name = f"layers.0.blocks.{block}.attn"
    found = look(model, images, {name: find_layers(model)[name]})[name]
    shift = 2 * block
    for y, x in itertools.product((0, 1, 2, 7, 15), repeat=2):
        one = found.at(y, x)
        rolled = [(place - shift) % 16 for place in (y, x)]
        window, own = rolled[0] // 4 * 4 + rolled[1] // 4, rolled[0] % 4 * 4 + rolled[1] % 4
        torch.testing.assert_close(one.weights[0, :, :, 0, 0], maps[window, :, own], rtol=1e-4, atol=1e-6)
        places = [(place[0] - shift) // 4 * 4 + shift for place in ([y], [x])]
        assert [one.rows.place[0, 0], one.columns.place[0, 0]] == places


def test_shifted_windows_that_timm_fills_up() -> None:
    model = timm.create_model("swin_tiny_patch4_window7_224", **{**SWIN, "img_size": 28}).eval()
    layers = find_layers(model)
    images = torch.randn(1, 3, 28, 28)
    look(model, images, {"first": layers["layers.0.blocks.0.attn"]})
    with pytest.raises(Exception, match="cannot look into second: timm shifts a map of 14 x 14 before"):
        look(model, images, {"second": layers["layers.0.blocks.1.attn"]})


def test_channels_that_change_most(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = ELSA(8, 2, group_width=4, kernel_size=3, lam=0)
    nn.init.zeros_(layer.ghost_head)
    with torch.no_grad():
        layer.ghost_head[0, [1, 6], 2, 0] = torch.tensor([-3.0, 2.0])
        found = attention_weights(layer, torch.randn(1, 5, 5, 8))
    monkeypatch.setattr(choosing, "CHANGED", 2)
    assert most_changed([found.at(2, 2)]) == [1, 6]
    seen = sight((2, 2), (2, 2), found.at(2, 2), [0], [1])
    assert (seen.after - seen.before)[0, 2, 0] == pytest.approx(-3, abs=1e-6)


def scene(spec: str, heads: int, pixels: list[tuple[int, int]], size: int = 12, **options: Any) -> Scene:
    """What is drawn of a layer at a map whose cells are two pixels wide."""
    dim = heads if "heads=C" in spec else 2 * heads
    options = {"kernel_size": 5, "heads": None if "heads=C" in spec else heads, **options}
    layer = LocalAttention(dim, spec, group_width=4, **options).eval()
    with torch.no_grad():
        found = attention_weights(layer, torch.randn(1, size, size, dim))
    channels = [*range(min(8, dim))] if found.mul is not None or found.add is not None else []
    cells = [(row // 2, column // 2) for row, column in pixels]
    sights = [
        sight(pixel, cell, found.at(*cell), [*range(heads)], channels)
        for pixel, cell in zip(pixels, cells, strict=True)
    ]
    picture = torch.rand(2 * size, 2 * size, 3).numpy()
    name = "layers.10.blocks.17.attn"
    return Scene("elsa_swin_micro", name, spec, found, picture, (2, 2), (2, 2), [*range(heads)], channels, sights)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("spec", "heads", "pixels"),
    [
        ("qk+rb softmax window", 1, 1),
        ("hadamard softmax neighborhood mul add", 2, 1),
        ("qk+rb softmax neighborhood border=mask mul", 8, 2),
        ("qk+rb filter neighborhood border=circular add", MOST_HEADS, 1),
        ("qk softmax neighborhood", 2, MOST_PIXELS),
        ("qk softmax neighborhood", drawing.MOST_ACROSS + 1, 2),
    ],
)
def test_no_text_is_on_another_or_on_a_panel(spec: str, heads: int, pixels: int) -> None:
    shown = scene(spec, heads, [(place, 23 - place) for place in range(pixels)])
    with drawing.plain_style():
        figure = drawing.figure_of(shown)
        renderer = FigureCanvasAgg(figure).get_renderer()
        boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in figure.texts]
        bars = [axes for axes in figure.axes if axes.get_ylabel()]
        panels = [("panel", axes.get_window_extent(renderer)) for axes in figure.axes if axes not in bars]
        panels += [("bar", axes.get_tightbbox(renderer)) for axes in bars]
    assert figure.get_figwidth() < 18  # many heads are in several lines
    assert len(bars) == (2 if shown.channels else 1)
    assert len(panels) - len(bars) == pixels * (heads + 1 + 2 * len(shown.channels))
    marks = boxes + panels[-len(bars) :]
    for (name, box), (other, beside) in [*itertools.combinations(marks, 2), *itertools.product(boxes, panels)]:
        assert not box.shrunk(0.98, 0.98).overlaps(beside.shrunk(0.98, 0.98)), (name, other)
    for name, box in boxes + panels:
        assert box.x0 >= 0 and box.y0 >= 0, name
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, name


def drawn(spec: str, pixel: tuple[int, int], **options: Any) -> tuple[Sight, list[Any]]:
    shown = scene(spec, 1, [pixel], **options)
    [seen] = shown.sights
    return seen, drawing.taps_of(shown, seen, seen.weights[0])


def test_taps_are_where_they_look() -> None:
    _, taps = drawn("qk softmax neighborhood", (0, 10))
    assert {(tap.row, tap.column) for tap in taps} == {*itertools.product(range(-2, 3), range(3, 8))}
    assert [tap.beyond for tap in taps] == [True] * 10 + [False] * 15
    assert sum(tap.weight for tap in taps) == pytest.approx(1)
    _, taps = drawn("qk softmax neighborhood border=mask", (0, 10))
    assert {(tap.row, tap.column) for tap in taps} == {*itertools.product(range(3), range(3, 8))}
    _, taps = drawn("qk softmax neighborhood border=circular", (0, 10))
    assert {(tap.row, tap.column) for tap in taps} == {*itertools.product((10, 11, 0, 1, 2), range(3, 8))}
    _, taps = drawn("qk softmax neighborhood border=shift", (0, 10))
    assert {(tap.row, tap.column) for tap in taps} == {*itertools.product(range(5), range(3, 8))}
    _, taps = drawn("qk softmax window", (0, 10), kernel_size=4, shift=1)
    assert {(tap.row, tap.column) for tap in taps} == {(0, column) for column in range(5, 9)}


def test_taps_at_one_place_are_added_up() -> None:
    seen, taps = drawn("qk filter neighborhood border=circular", (0, 0), size=3)
    assert len(taps) == 9
    assert sum(tap.weight for tap in taps) == pytest.approx(seen.weights[0].sum(), abs=1e-5)
    corner = [tap.weight for tap in taps if (tap.row, tap.column) == (1, 1)]
    assert corner == [pytest.approx(seen.weights[0][[0, 0, 3, 3], [0, 3, 0, 3]].sum())]


def corners(collection: Any) -> list[tuple[float, float]]:
    """The upper left corner, as column and row, of every cell."""
    return [(box.x0, box.y0) for box in (path.get_extents() for path in collection.get_paths())]


@pytest.mark.thorough
def test_everything_lies_where_it_is_in_the_picture() -> None:
    """The cell 0, 5, which looks at the rows 0 to 2 and the columns 3 to 7 of 2 x 2 pixels: white ones here."""
    shown = scene("qk softmax neighborhood border=mask", 1, [(0, 10)])
    [seen] = shown.sights
    taps = drawing.taps_of(shown, seen, seen.weights[0])
    shown.picture[:] = 0
    shown.picture[:6, 6:16] = 1
    picture, weights = Figure().subplots(1, 2)
    drawing.draw_picture(picture, shown, seen)
    drawing.draw_weights(weights, shown, seen, taps, drawing.scale_of([1.0], False))
    for axes in (picture, weights):
        [image], places = axes.images, corners(axes.collections[0])
        assert {*places} == {(2 * column, 2 * row) for row in range(3) for column in range(3, 8)}
        for x, y in itertools.product(range(0, 24, 2), repeat=2):
            middle = SimpleNamespace(**dict(zip("xy", axes.transData.transform((x + 1, y + 1)), strict=True)))
            assert (np.max(image.get_cursor_data(middle)) > 0.9) == ((x, y) in places)
        assert axes.patches[-1].get_xy() == (10, 0) and axes.yaxis_inverted()
    array = dict(zip(corners(weights.collections[0]), weights.collections[0].get_array(), strict=True))
    assert array == {(2 * tap.column, 2 * tap.row): tap.weight for tap in taps}


@pytest.mark.thorough
def test_weights_and_filters_are_those_of_their_panels() -> None:
    shown = scene("hadamard softmax neighborhood add", 4, [(10, 10)])
    [seen] = shown.sights
    panels = drawing.figure_of(shown).axes
    for axes, weights in zip(panels[1:5], seen.weights, strict=True):
        assert np.array_equal(axes.collections[0].get_array(), weights.ravel())
    for axes, weights in zip(panels[6:-1], itertools.chain(*zip(seen.before, seen.after, strict=True)), strict=True):
        assert np.array_equal(axes.collections[0].get_array(), weights.ravel())
        assert corners(axes.collections[0]) == [(j, i) for i in range(5) for j in range(5)] and axes.yaxis_inverted()
    texts = [text.get_text() for text in panels[0].figure.texts]
    assert {"channel 1 (head 0)", "channel 2 (head 1)"} < {*texts}


@pytest.mark.parametrize(
    ("size", "length", "layer", "cells"),
    [
        (13, 7, LocalAttention(4, "qk softmax neighborhood", kernel_size=3, heads=2), (1, 4)),  # padded by a pixel
        (16, 8, ELSA(4, 2, group_width=2, kernel_size=3, stride=2), (1, 3)),
    ],
    ids=["padded", "stride"],
)
def test_picture_and_cells(size: int, length: int, layer: nn.Module, cells: tuple[int, int]) -> None:
    """The picture is as it was before it was normalised, and a pixel's cell is one of those that the layer makes."""
    expected, mean, std = torch.rand(3, size, size), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    images = (expected[None] - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with torch.no_grad():
        found = attention_weights(layer.eval(), torch.randn(1, length, length, 4))
    checkpoint = Checkpoint("m", {}, [], {"mean": mean, "std": std}, 1, {}, {})
    args = argparse.Namespace(at=None, grid=2, heads=None, channels=None)
    shown = scene_of(checkpoint, "attn", layer, found, images, args)
    torch.testing.assert_close(torch.from_numpy(shown.picture), expected.permute(1, 2, 0))
    assert [seen.pixel for seen in shown.sights] == [*itertools.product((size // 4, 3 * size // 4), repeat=2)]
    assert [seen.cell for seen in shown.sights] == [*itertools.product(cells, repeat=2)]


def test_cells_where_a_stride_leaves_out_the_last_input_and_where_maps_grow() -> None:
    assert cells_of_outputs((8, 8), (25, 25), (12, 50)) == (16, 4)


def test_first_call_of_a_layer_counts() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, images: Tensor) -> Tensor:
            self.layer(images)
            return self.layer(images.zero_())

    model, images = Twice(), torch.ones(2, 3)
    assert torch.equal(inputs_of(model, images, [model.layer])[model.layer], torch.ones(2, 3))


def test_signed_weights_have_white_at_0() -> None:
    colours, limits = drawing.scale_of([0.5, -2.0], True)
    assert (colours, limits.vmin, limits.vmax) == ("RdBu_r", -2, 2)
    assert limits([-2, -0.5, 0, 0.5, 2]).tolist() == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    colours, limits = drawing.scale_of([0.5, 0.2], False)
    assert (colours, limits.vmin, limits.vmax) == ("YlOrRd", 0, 0.5)
