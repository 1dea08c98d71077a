"""What an op is: what its file says of it, what its registered schemas say, and how a call finds its implementation."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .. import _torch_private as private
from .._ops import ops
from ..backend import is_native
from . import autocast
from .checks import CONVERTERS, as_given, check_tensors

Tensors: TypeAlias = Sequence[Tensor | None]
Options: TypeAlias = dict[str, Any]
# The tensors of a call, and for each of them whether it is an input of the op, not a direction.
Term: TypeAlias = tuple[Tensors, Sequence[bool]]


class Registered:
    """A registered op and its schema: which tensors it takes, and which options with what defaults."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.packet = getattr(ops, name)
        self.call = self.packet.default
        self.arguments = private.schema(self.call).arguments
        self.tensors = tuple(argument.name for argument in self.arguments if not argument.kwarg_only)
        self.options = tuple(argument.name for argument in self.arguments if argument.kwarg_only)
        self._defaults = [(argument.name, argument.default_value) for argument in self.arguments]

    def complete(self, args: Sequence[Any], options: Options) -> list[Any]:
        """Return all arguments in their order: the dispatcher leaves out those that equal their default."""
        return [*args, *[options.get(name, default) for name, default in self._defaults[len(args) :]]]

    def leading(self, args: Sequence[Any], options: Options) -> list[Any]:
        """Return the arguments in their order, all tensors, and of the options those up to the last that is given."""
        arguments, left = [*args, *[None] * (len(self.tensors) - len(args))], len(options)
        for name, default in self._defaults[len(self.tensors) :]:
            if left == 0:
                break
            left -= name in options
            arguments.append(_one_for_both(options.get(name, default)))
        return arguments

    @cached_property
    def signature(self) -> inspect.Signature:
        """The schema as the signature of a Python function."""
        return inspect.Signature(
            [
                inspect.Parameter(
                    argument.name,
                    inspect.Parameter.KEYWORD_ONLY if argument.kwarg_only else inspect.Parameter.POSITIONAL_OR_KEYWORD,
                    default=_one_for_both(argument.default_value)
                    if argument.has_default_value()
                    else inspect.Parameter.empty,
                )
                for argument in self.arguments
            ]
        )


@dataclass(eq=False)
class Op:
    """One op, from what cannot be read from its schemas.

    Those have to be ``<name>(Tensor, …, *, options) -> Tensor`` and, with the same tensors and options,
    ``<name>_backward(Tensor grad, [Tensor result,] …, *, options, bool need_… of every tensor) -> (a gradient of every
    tensor)``. The names of tensors below are those of the schema.

    Attributes:
        function: The public function. It has the name and the arguments of the op, and calls this object with them.
        check: Takes the name of the op to put in its errors, the tensors, and the options by name; returns the size of
            the result.
        formula: The op in plain PyTorch, which takes the tensors, and the options by name.
        multiply_adds: Takes shapes and options by name and returns how many a call takes.
        backward_multiply_adds: The same of a call of the backward op.
        maps: The tensors (B, C, H, W), of which the first decides dtype and memory format of the result. Their
            gradients have their memory format, and vmap folds its dimension into their batch.
        per_sample: The tensors that may have a batch dimension in front, with their number of dimensions without it,
            or a function that gives that for a shape and the options: vmap folds them, too. Where another tensor is
            mapped, it calls the op once for every index.
        casts: The tensors that autocast casts; None means all.
        terms: Takes tensors and a direction (or None) for each, and writes the derivative along these directions as a
            sum of calls of the op, from which derivatives of every order follow. None where that cannot be done: then
            they are those of the formula.
        gradients: Takes the tensors of the backward op, and the options by name, and returns the gradients in plain
            PyTorch. None means those that PyTorch makes of the formula.
    """

    function: Callable[..., Tensor]
    check: Callable[..., Sequence[int]]
    formula: Callable[..., Tensor]
    multiply_adds: Callable[..., int]
    backward_multiply_adds: Callable[..., int]
    maps: Sequence[str]
    per_sample: Mapping[str, int | Callable[[Sequence[int], Options], int]] = field(default_factory=dict)
    casts: Sequence[str] | None = None
    terms: Callable[..., list[Term]] | None = None
    gradients: Callable[..., Tensors] | None = None

    # The registered ops as autograd functions; registration sets them.
    functions: tuple[type[torch.autograd.Function], type[torch.autograd.Function]] = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.function.__name__
        self.forward, self.backward = Registered(self.name), Registered(f"{self.name}_backward")
        self.tensors, self.options = self.forward.tensors, self.forward.options
        self.needs = self.backward.options[len(self.options) :]
        # What the backward op takes beside the gradient and the inputs: the result, under the op's name for it.
        self.saved_result = self.backward.tensors[1 : -len(self.tensors)]
        self.is_cast = [self.casts is None or name in self.casts for name in self.tensors]
        arguments = self.forward.arguments
        self._required = {a.name: str(a.type) == "Tensor" for a in arguments if not a.kwarg_only}
        self._converters = {
            argument.name: CONVERTERS.get(str(argument.type), as_given) for argument in arguments if argument.kwarg_only
        }
        # By option, a type that the dispatcher takes as it is, and the default.
        self._plain = {
            argument.name: (_PLAIN_TYPES.get(str(argument.type)), _one_for_both(argument.default_value))
            for argument in arguments
            if argument.kwarg_only
        }

    def __call__(self, *tensors: Tensor | None, **options: Any) -> Any:
        """Call the registered op or the formula; tensors and options are in the order of the schema."""
        check_tensors(self.name, self._required, tensors)
        first: Any = tensors[0]
        if is_native(self.name, first) and not private.transforms_active():
            if torch.compiler.is_compiling():  # the dispatcher takes no symbolic number for a list of two
                return self.forward.packet(*tensors, **self.converted(options))
            if private.needs_derivative(tensors):
                return self.forward.packet(*tensors, **self._brief(options))
            with private.below_autograd():
                return self.forward.packet(*tensors, **self._brief(options))
        options = self.converted(options)
        inputs: Sequence[Any] = tensors
        if autocast.is_enabled(first.device.type):
            inputs = autocast.cast(inputs, self.is_cast, first.device.type)
        if is_native(self.name, first):
            return self.functions[0].apply(*inputs, *as_leaves(options.values()))
        self.check(self.name, *inputs, **options)
        if inputs is tensors:
            return self.formula(*inputs, **options)
        with torch.autocast(first.device.type, enabled=False):  # the formula may compute in more than 16 bits
            return self.formula(*inputs, **options)

    def _brief(self, options: Options) -> Options:
        """Return the options that are not their default, as what the dispatcher takes: lists cost a call much."""
        brief = {}
        for name, option in options.items():
            kind, default = self._plain[name]
            if type(option) is not kind:
                brief[name] = self.convert(name, option)
            elif option != default:
                brief[name] = option
        return brief

    def completed(self, options: Options) -> Options:
        """Return all options, of which those that are their default may be missing, as the formula takes them."""
        defaults = {name: default for name, (_, default) in self._plain.items()}
        return self.converted({**defaults, **options})

    def converted(self, options: Options) -> Options:
        """Return the options as what the dispatcher takes, in the order of the schema."""
        return {name: self.convert(name, options[name]) for name in self.options}

    def convert(self, name: str, option: Any) -> Any:
        """Return one option as what the dispatcher takes."""
        return self._converters[name](self.name, name, option)

    def apply(self, tensors: Tensors, options: Options) -> Tensor:
        """Call the registered op from a derivative, so that this call has derivatives again."""
        if private.transforms_active():
            return self.functions[0].apply(*tensors, *as_leaves(options.values()))
        return self.forward.call(*tensors, **options)

    def apply_backward(self, tensors: Tensors, options: Options, needed: Sequence[bool]) -> Tensors:
        """Call the registered backward op from a derivative; a gradient that is not needed comes out as None."""
        if private.transforms_active():
            gradients = self.functions[1].apply(*tensors, *as_leaves(self.completed(options).values()), *needed)
        else:
            gradients = self.backward.call(*tensors, **options, **dict(zip(self.needs, needed, strict=True)))
        return only(needed, gradients)


# Types of options as schemas have them, and what stands for them in most calls.
_PLAIN_TYPES = {"int": int, "float": float, "str": str, "List[int]": int}


class _Leaf(list):
    """A list that PyTorch does not take apart, as its transforms do with the arguments of an autograd function."""


def as_leaves(options: Iterable[Any]) -> list[Any]:
    """Return options as an autograd function takes them, each one argument."""
    return [_Leaf(option) if isinstance(option, list) else option for option in options]


def _one_for_both(option: Any) -> Any:
    """Return one number for a list of the same, as people write it and calls are faster with; not a symbolic one."""
    if isinstance(option, list) and type(option[0]) is int and option == option[:1] * len(option):
        return option[0]
    return option


def only(needed: Sequence[bool], values: Sequence[Any]) -> tuple[Any, ...]:
    """Return the values that are needed, and None in the place of the others."""
    return tuple(value if need else None for need, value in zip(needed, values, strict=True))
