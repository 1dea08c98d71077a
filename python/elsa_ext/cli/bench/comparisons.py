"""From the arguments of ``elsa-ext bench op`` or ``module`` to the comparisons that they ask for."""

import argparse
import functools
import importlib
from collections.abc import Callable, Iterator

import torch

from ..errors import CommandError
from .contenders import Comparison, Contender, directions
from .problems import problems
from .subjects import SUBJECTS, Subject


def comparisons(args: argparse.Namespace, device: torch.device) -> list[Comparison]:
    """Return one comparison per problem and subject.

    Raises:
        CommandError: An argument is not for one of the subjects.
    """
    subjects = [SUBJECTS[args.kind][name] for name in dict.fromkeys(args.subjects)]
    check_baselines(args, subjects)
    found = []
    for kind in dict.fromkeys(subject.problem for subject in subjects):
        alike = [subject for subject in subjects if subject.problem is kind]
        yielding = {subject.name: load(subject) for subject in alike}
        for problem in problems(kind, args):
            found += [
                Comparison(
                    label=f"{subject.name}, {problem.name}",
                    title=f"{subject.name}, {problem.name}: {subject.describe(problem)}",
                    problem={"op": subject.name, **problem.identity()},
                    directions=directions(args.backprop),
                    contenders=functools.partial(
                        yielding[subject.name], problem, device, args.backprop, wanted(args, subject)
                    ),
                )
                for subject in alike
            ]
    return found


def load(subject: Subject) -> Callable[..., Iterator[Contender]]:
    """Import the function that yields the contenders."""
    module, name = subject.contenders.split(":")
    return getattr(importlib.import_module(f".{module}", __package__), name)


def wanted(args: argparse.Namespace, subject: Subject) -> tuple[str, ...]:
    """Return the keys of those baselines that were asked for and that the subject has."""
    if "none" in args.baselines:
        return ()
    return tuple(key for key in subject.baselines if key in args.baselines or "all" in args.baselines)


def check_baselines(args: argparse.Namespace, subjects: list[Subject]) -> None:
    """Raise a ``CommandError`` if a baseline was asked for that none of the subjects has."""
    has = list(dict.fromkeys(key for subject in subjects for key in subject.baselines))
    for key in args.baselines:
        if key not in (*has, "all", "none"):
            names = " and ".join(subject.name for subject in subjects)
            raise CommandError(f"--baselines {key} is not for {names}, which can be compared with {', '.join(has)}")
