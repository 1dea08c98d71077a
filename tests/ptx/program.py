"""PTX as text, and the kernels in it as lists of instructions."""

import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Instruction:
    """One instruction; ``guard`` is the predicate under which it runs, ``negated`` whether that has to be false."""

    text: str
    operation: str
    parts: tuple[str, ...]
    operands: tuple[str, ...]
    guard: str | None = None
    negated: bool = False


@dataclass
class Kernel:
    """An entry of a PTX file."""

    name: str
    parameter_bytes: int
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)
    """The bits of a register, by the prefix of its name; 1 for a predicate."""


def operands(text: str) -> tuple[str, ...]:
    """Split at the commas that are not in brackets."""
    return tuple(part.strip() for part in re.split(r",(?![^{\[]*[}\]])", text) if part.strip())


def instruction(text: str) -> Instruction:
    """Read one instruction."""
    match = re.fullmatch(r"(?:@(!?)(%\w+)\s+)?([a-z][\w.:]*)\s*(.*)", text, re.DOTALL)
    if match is None:
        raise ValueError(f"ptx: cannot read '{text}'")
    negated, guard, operation, rest = match.groups()
    return Instruction(text, operation, tuple(operation.split(".")), operands(rest), guard, negated == "!")


def kernels(ptx: str) -> dict[str, Kernel]:
    """Return the kernels of a PTX file by their mangled names."""
    found = {}
    for entry in re.finditer(
        r"\.entry (\w+)\(\s*(?:\.param [^\[]*\[(\d+)\])?\s*\)[^{]*\{\n(.*?)\n\}\n", ptx, re.DOTALL
    ):
        name, parameter_bytes, body = entry.groups()
        kernel = found[name] = Kernel(name, int(parameter_bytes or 0))
        body = re.sub(r"//[^\n]*", "", body)
        # Inline assembly is a block of its own, in braces that no operand begins with.
        body = re.sub(r"^\s*\{(?=\s*(?:$|[a-z.]))|(?<=;)\s*\}\s*$|^\s*\}\s*$", "", body, flags=re.MULTILINE)
        # The registers of such a block, as in ".reg .f16 low,high;", have names of their own.
        for kind, names in set(re.findall(r"\.reg \.(\w+) ([a-z]\w*(?:,[a-z]\w*)*);", body)):
            for own in names.split(","):
                body = re.sub(rf"(?<![\w.%]){own}\b", f"%{own}", body)
                kernel.widths[f"%{own}"] = int(kind[1:])
        for statement in re.findall(r"\$\w+:|[^;:]+(?:::[^;:]+)*;", body):
            text = statement.strip().rstrip(";").strip()
            if text.startswith("$"):
                kernel.labels[text.rstrip(":")] = len(kernel.instructions)
            elif text.startswith(".reg"):
                kind, prefix = re.match(r"\.reg \.(\w+)\s+(%\w+)", text).groups()  # type: ignore[union-attr]
                kernel.widths[prefix.rstrip("0123456789")] = 1 if kind == "pred" else int(kind[1:])
            elif text and not text.startswith("."):
                kernel.instructions.append(instruction(text))
    return found
