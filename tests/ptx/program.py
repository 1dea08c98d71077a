"""PTX as text, and the kernels in it as lists of instructions."""

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

# The bytes of a type, by the letters and digits of its name.
TYPE_BITS = re.compile(r"[bsuf](8|16|32|64)")


@dataclass(frozen=True)
class Instruction:
    """One instruction; ``guard`` is the predicate under which it runs, ``negated`` whether that has to be false."""

    text: str
    operation: str
    parts: tuple[str, ...]
    operands: tuple[str, ...]
    guard: str | None = None
    negated: bool = False

    @property
    def moves_threads(self) -> bool:
        """Whether threads may stand elsewhere than at the next instruction after it."""
        return self.operation.removesuffix(".uni") in ("bra", "ret", "bar.sync")

    @property
    def accessed_bytes(self) -> int:
        """What a thread reads or writes with it, if it is a load or store."""
        if self.parts[0] == "ldmatrix":
            return 16
        match = TYPE_BITS.fullmatch(self.parts[-1])
        assert match is not None, self.text
        return int(match[1]) // 8 * {"v2": 2, "v4": 4}.get(self.parts[-2], 1)


@dataclass
class Kernel:
    """An entry of a PTX file."""

    name: str
    parameter_bytes: int
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)
    """The bits of a register, by the prefix of its name; 1 for a predicate."""

    def width(self, register: str) -> int:
        """Return the bits of a register."""
        return self.widths[register.rstrip("0123456789")]

    @cached_property
    def sources(self) -> set[str]:
        """The registers that an instruction reads, and those that several write."""
        uses = Counter(name for i in self.instructions for name in set(re.findall(r"%\w+", i.text)))
        return {name for name, count in uses.items() if count > 1}

    @cached_property
    def shared_word(self) -> int:
        """The least number of bytes that an instruction reads from or writes to shared memory."""
        accesses = [i for i in self.instructions if "shared" in i.parts and i.parts[0] != "cvta"]
        return min((access.accessed_bytes for access in accesses), default=16)


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


ENTRY = re.compile(r"\.entry (\w+)\(\s*(?:\.param [^\[\n]*\[(\d+)\])?\s*\)[^{]*\{\n(.*?)\n\}\n", re.DOTALL)


def kernels(ptx: str) -> dict[str, Kernel]:
    """Return the kernels of a PTX file by their mangled names."""
    return {entry[1]: kernel(entry[1], int(entry[2] or 0), entry[3]) for entry in ENTRY.finditer(ptx)}


def kernel(name: str, parameter_bytes: int, body: str) -> Kernel:
    """Read the body of a kernel."""
    found = Kernel(name, parameter_bytes)
    body = re.sub(r"//[^\n]*", "", body)
    # Inline assembly is a block of its own, in braces that no operand begins with.
    body = re.sub(r"^\s*\{(?=\s*(?:$|[a-z.]))|(?<=;)\s*\}\s*$|^\s*\}\s*$", "", body, flags=re.MULTILINE)
    # The registers of such a block, as in ".reg .f16 low,high;", have names of their own.
    for kind, names in set(re.findall(r"\.reg \.(\w+) ([a-z]\w*(?:,[a-z]\w*)*);", body)):
        for own in names.split(","):
            body = re.sub(rf"(?<![\w.%]){own}\b", f"%{own}", body)
            found.widths[f"%{own}"] = int(kind[1:])
    for statement in re.findall(r"\$\w+:|[^;:]+(?:::[^;:]+)*;", body):
        text = statement.strip().rstrip(";").strip()
        if text.startswith("$"):
            found.labels[text.rstrip(":")] = len(found.instructions)
        elif match := re.match(r"\.reg \.(\w+)\s+(%\w+)", text):
            found.widths[match[2].rstrip("0123456789")] = 1 if match[1] == "pred" else int(match[1][1:])
        elif text and not text.startswith("."):
            found.instructions.append(instruction(text))
    return found
