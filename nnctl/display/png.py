"""PNG files from arrays of bytes, without a library."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

from nnctl.nn.functions import Array

GREY, INDEXED = 0, 3  # colour types


def png(pixels: Array, palette: Array | None = None) -> bytes:
    """Return `pixels` (rows, columns), uint8, as a PNG: greys, or places in a `palette`.

    A palette (colours, 4) holds red, green, blue and opacity, uint8. W3C, "Portable Network
    Graphics Specification (Third Edition)", sections 5 and 11.
    """
    rows, columns = pixels.shape
    kind = GREY if palette is None else INDEXED
    parts = [(b"IHDR", struct.pack(">2I5B", columns, rows, 8, kind, 0, 0, 0))]
    if palette is not None:
        parts.append((b"PLTE", palette[:, :3].tobytes()))
        if (palette[:, 3] < 255).any():
            parts.append((b"tRNS", palette[:, 3].tobytes()))
    filtered = np.pad(pixels, ((0, 0), (1, 0)))  # each row begins with its filter: 0, none
    parts += [(b"IDAT", zlib.compress(filtered.tobytes(), 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


def data_uri(image: bytes) -> str:
    """Return a PNG as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"
