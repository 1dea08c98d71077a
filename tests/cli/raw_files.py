"""PNG and TIFF files byte by byte, for what Pillow does not write."""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.number]


def png(rows: Pixels, depth: int, colour: int, *chunks: tuple[bytes, bytes], width: int = 0) -> bytes:
    """Return a PNG of rows of whole bytes, with more chunks before the pixels; ``width`` only if a byte is no pixel."""
    header = struct.pack(">IIBBBBB", width or rows.shape[1], len(rows), depth, colour, 0, 0, 0)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    body = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, content) for name, content in body)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def tiff(pixels: Pixels, photometric: int = 1, planar: int = 1, **tags: int | tuple[int, ...]) -> bytes:
    """Return a TIFF of pixels (height, width[, channels]) in their own byte order.

    Other tags are given as ``t339=(2,)``. Zlib compresses it if ``t259=8`` is among them.
    """
    order = ">" if pixels.dtype.str.startswith(">") else "<"
    height, width, *rest = pixels.shape
    channels = rest[0] if rest else 1
    planes = np.moveaxis(pixels, 2, 0) if planar == 2 else pixels[None]
    bits = tags.pop("bits", pixels.itemsize * 8)
    strips = [plane.tobytes() for plane in planes]
    if tags.get("t259") == 8:
        strips = [zlib.compress(strip) for strip in strips]
    starts = tuple(8 + sum(map(len, strips[:i])) for i in range(len(strips)))
    values = {256: width, 257: height, 258: (bits,) * channels, 259: 1, 262: photometric, 273: starts, 277: channels}
    values |= {278: height, 279: tuple(map(len, strips)), 284: planar} | {int(k[1:]): v for k, v in tags.items()}
    data = b"".join(strips)
    entries, extra = [], b""
    table = 8 + len(data)
    for tag, value in sorted(values.items()):
        value = value if isinstance(value, tuple) else (value,)
        kind, letter = (4, "I") if tag in (273, 279) else (3, "H")
        packed = struct.pack(f"{order}{len(value)}{letter}", *value)
        if len(packed) > 4:
            extra += packed
            packed = struct.pack(f"{order}I", table + 2 + 12 * len(values) + 4 + len(extra) - len(packed))
        entries.append(struct.pack(f"{order}HHI", tag, kind, len(value)) + packed.ljust(4, b"\0"))
    head = b"II" if order == "<" else b"MM"
    head += struct.pack(f"{order}HI", 42, table)
    return head + data + struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4) + extra
