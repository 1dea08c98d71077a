"""Text from users, such as names of files and classes, as it may stand on a terminal and in a picture."""

import math
import unicodedata


def printable(text: str) -> str:
    r"""Return ``text`` with all that is no visible character escaped as in Python: ``\n``, ``\x1b``, ``\u202e``.

    These are control codes, marks that turn the direction of writing, and the bytes of a file name that are not text.
    """
    return "".join(character if is_visible(character) else escape(character) for character in text)


def is_visible(character: str) -> bool:
    """Tell whether a character shows as itself, spaces of any width included."""
    return character.isprintable() or unicodedata.category(character) == "Zs"


def escape(character: str) -> str:
    """Return how Python writes a character, or a byte that is not text, which it keeps as U+DC80 to U+DCFF."""
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else character.encode("unicode_escape").decode()


def three_digits(value: float) -> str:
    """Return a number with three significant digits, and all before the point."""
    digits = max(0, 2 - math.floor(math.log10(value)))
    return f"{value:,.{digits}f}"
