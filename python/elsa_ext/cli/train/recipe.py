"""Recipes: files of options for ``elsa-ext train``."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..._install import install_command
from ..argument_types import Parser

FOLDER = Path(__file__).with_name("recipes")
RECIPES = sorted(file.stem for file in FOLDER.glob("*.yaml"))
"""The names of the recipes that come with the package."""

NOT_IN_RECIPES = {"help", "config", "resume"}


def recipe_arguments(parser: Parser, words: list[str]) -> list[str]:
    """Return what the recipe that is the last ``--config`` among ``words`` says, as arguments of the command line.

    A file of that name comes before a recipe of the package. What cannot be read or is not known ends the program by
    ``parser.error``.
    """
    joined = [word.partition("=")[2] for word in words if word.startswith("--config=")]
    names = [words[index + 1] for index, word in enumerate(words[:-1]) if word == "--config"] + joined
    if not names or not names[-1]:
        return []
    name = names[-1]
    path = FOLDER / f"{name}.yaml" if name in RECIPES and not Path(name).exists() else Path(name)
    return [word for key, value in read(parser, path).items() for word in argument(parser, path, str(key), value)]


def read(parser: Parser, path: Path) -> dict[Any, Any]:
    """Read a YAML file of keys and values."""
    try:
        import yaml  # comes with timm, which not every command needs
    except ImportError:
        parser.error(f"--config needs PyYAML: {install_command('pyyaml')}")
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        parser.error(f"--config {path}: {error.strerror}; of the package there are {', '.join(RECIPES)}")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        parser.error(f"--config {path} is not YAML: {' '.join(str(error).split())}")
    if content is None:
        return {}
    if not isinstance(content, dict):
        parser.error(f"--config {path}: expected lines such as `epochs: 300`, got {type(content).__name__}")
    return content


def argument(parser: Parser, path: Path, key: str, value: Any) -> list[str]:
    """Return one line of a recipe as arguments of the command line; nothing for null, which leaves the default."""
    flag = f"--{key.replace('_', '-')}"
    action = parser._option_string_actions.get(flag)
    if action is None or action.dest in NOT_IN_RECIPES or flag.startswith("--no-"):
        flags = [option[2:] for option in parser._option_string_actions if option.startswith("--")]
        close = get_close_matches(key.replace("_", "-"), flags, 1, 0.6)
        hint = f"; did you mean {close[0].replace('-', '_')}?" if close else ""
        parser.error(f"--config {path}: unknown key {key}{hint}")
    if value is None:
        return []
    if isinstance(value, bool):
        negative = f"--no-{flag[2:]}"
        if negative not in parser._option_string_actions:
            parser.error(f"--config {path}: {key} is neither on nor off, got {str(value).lower()}")
        return [flag if value else negative]
    if isinstance(value, list):
        return [flag, *map(str, value)]
    return [f"{flag}={value}"]
