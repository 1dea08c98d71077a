"""What can stand on a command line, read from its parser."""

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Value:
    """What an option takes, or what stands in a place of its own: one of the choices, or a file if there are none."""

    name: str
    choices: tuple[str, ...]
    many: bool


@dataclass(frozen=True)
class Option:
    """A flag in all its spellings; without a value it stands alone."""

    flags: tuple[str, ...]
    help: str
    value: Value | None


@dataclass(frozen=True)
class Command:
    """A command, by the words that lead to it, such as ("bench", "op"), or the program, ()."""

    words: tuple[str, ...]
    help: str
    options: tuple[Option, ...]
    places: tuple[Value, ...]
    commands: "tuple[Command, ...]"

    def all(self) -> "Iterator[Command]":
        """Yield this one and those below."""
        yield self
        for command in self.commands:
            yield from command.all()


def read_parser(parser: argparse.ArgumentParser, words: tuple[str, ...] = (), text: str = "") -> Command:
    """Return the command that a parser reads, with those below it."""
    options, places, commands = [], [], []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {choice.dest: str(choice.help) for choice in action._choices_actions}
            commands = [read_parser(below, (*words, name), texts[name]) for name, below in action.choices.items()]
        elif action.option_strings:
            value = None if action.nargs == 0 else read_value(action)
            options.append(Option(tuple(action.option_strings), read_help(parser, action), value))
        else:
            places.append(read_value(action))
    return Command(words, text, tuple(options), tuple(places), tuple(commands))


def read_value(action: argparse.Action) -> Value:
    """Return what an argument takes."""
    choices = tuple(map(str, action.choices)) if action.choices is not None else ()
    name = action.metavar if isinstance(action.metavar, str) else action.dest
    return Value(name, choices, action.nargs in ("+", "*"))


def read_help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """Return the first clause of an argument's help."""
    text = parser._get_formatter()._expand_help(action) if action.help else ""
    return re.split(r"[;:(]", text)[0].strip() or action.dest
