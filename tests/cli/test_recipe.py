"""Recipes: what a file says is what the command line would, which has the last word."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import yaml
from elsa_ext.cli.parser import build_parser
from elsa_ext.cli.train import recipe

from .conftest import Result
from .test_errors import assert_refused

Command = Callable[..., Result]


def test_the_command_line_has_the_last_word(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("epochs: 7\nlr: 1e-4\nfreeze: [patch_embed, layers.0]\ncompile: true\nclip-grad: 5\nema: null\n")
    for words in (["--config", str(path), "--epochs", "9"], ["--epochs=9", f"--config={path}"]):
        args = build_parser().parse_args(["train", *words])
        assert (args.epochs, args.lr, args.compile, args.clip_grad) == (9, 1e-4, True, 5.0)
        assert args.freeze == ["patch_embed", "layers.0"]
        assert args.given == {"config", "epochs", "lr", "freeze", "compile", "clip_grad"}
    args = build_parser().parse_args(["train", "--config", str(path), "--no-compile"])
    assert (args.epochs, args.compile) == (7, False)
    assert build_parser().parse_args(["train"]).given == frozenset()


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("epoch: 3", ["recipe.yaml: unknown key epoch; did you mean epochs?"]),
        ("nothing_like_it: 3", ["recipe.yaml: unknown key nothing_like_it "]),
        ("no_compile: true", ["unknown key no_compile"]),
        ("resume: runs/x", ["unknown key resume"]),
        ("config: other.yaml", ["unknown key config"]),
        ("epochs: many", ["--epochs", "whole number >= 1", "'many'"]),
        ("epochs: true", ["epochs is neither on nor off, got true"]),
        ("amp: fp8", ["--amp", "invalid choice: 'fp8'"]),
        ("- epochs", ["expected lines such as `epochs: 300`, got list"]),
        ("epochs: [", ["recipe.yaml is not YAML: "]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_recipes(command: Command, tmp_path: Path, content: str, parts: list[str]) -> None:
    (tmp_path / "recipe.yaml").write_text(content)
    assert_refused(command("train", "--config", tmp_path / "recipe.yaml"), "elsa-ext train: ", *parts)


def test_no_recipe(command: Command) -> None:
    result = command("train", "--config", "nowhere.yaml")
    assert_refused(result, "--config nowhere.yaml: No such file or directory; of the package there are elsa_swin_base")
    assert_refused(command("train", "--config"), "--config")


@pytest.mark.parametrize("name", recipe.RECIPES)
def test_published_recipes(name: str) -> None:
    """Every line is taken, and the model is timm's or ours."""
    content = yaml.safe_load((recipe.FOLDER / f"{name}.yaml").read_text())
    args = build_parser().parse_args(["train", "--config", name])
    assert {key: getattr(args, key) for key in content} == content
    assert timm.is_model(args.model)
    assert (args.epochs, args.batch_size, args.lr, args.weight_decay) == (300, 1024, 1e-3, 0.05)


def test_recipe_for_other_data(command: Command) -> None:
    assert_refused(command("train", "--config", "swin_tiny"), "--auto-augment, --crop-scale: for folders of images")


def test_file_before_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("swin_tiny").write_text("epochs: 2")
    assert build_parser().parse_args(["train", "--config", "swin_tiny"]).epochs == 2
