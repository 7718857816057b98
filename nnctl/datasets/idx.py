"""The IDX format of MNIST: bytes -> arrays, and not one byte taken on trust.

A file is a magic number (0, 0, 8 for unsigned bytes, number of dimensions), one big-endian
32-bit size for each dimension, and the values. Hides gzip, memory mapping and every check:
whatever a file holds, the outcome is an array or a `DataError` that names the file and the
field, and memory is claimed only after the sizes have been found plausible.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from nnctl.errors import DataError, printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.uint8]

# The dimensions of each kind of file, by their names in messages.
LABELS = ("number of labels",)
IMAGES = ("number of images", "rows", "columns")

LARGEST_UNPACKED = 2**31
# Deflate packs at most 1032 bytes into one: a header that promises more is wrong.
_LARGEST_RATIO = 1032
_CHUNK = 2**16


def read_shape(path: Path, dimensions: tuple[str, ...]) -> tuple[int, ...]:
    """Return the size of each dimension from the header of `path`; reads no values.

    Raises `DataError`, and `OSError` as it comes.
    """
    with open(path, "rb") as stream:
        head, length = stream.read(_CHUNK), os.fstat(stream.fileno()).st_size
    if path.suffix == ".gz":
        try:
            header = zlib.decompressobj(wbits=31).decompress(head, _header_size(dimensions))
        except zlib.error as error:
            raise DataError(f"{printable(path)}: not a gzip file: {error}") from error
        return _parse(header, dimensions, path)
    shape = _parse(head, dimensions, path)
    expected = _header_size(dimensions) + math.prod(shape)
    if length != expected:
        raise DataError(
            f"{printable(path)}: {length:,} bytes, where the header's {_product(shape)} values "
            f"make {expected:,}"
        )
    return shape


def map_raw(path: Path, dimensions: tuple[str, ...]) -> Array:
    """Return the values of a file that isn't packed, memory-mapped and read-only."""
    import numpy as np

    shape = read_shape(path, dimensions)
    return np.asarray(
        np.memmap(path, np.uint8, mode="r", offset=_header_size(dimensions), shape=shape)
    )


def unpack(packed: bytes, dimensions: tuple[str, ...], where: object) -> Array:
    """Return the values of a gzipped file of content `packed`, read-only; `where` names it."""
    import numpy as np

    try:
        shape, values = _inflate(packed, dimensions, where)
    except zlib.error as error:
        raise DataError(f"{printable(where)}: corrupt gzip: {error}") from error
    return np.frombuffer(memoryview(values).toreadonly(), np.uint8).reshape(shape)


def _inflate(
    packed: bytes, dimensions: tuple[str, ...], where: object
) -> tuple[tuple[int, ...], bytearray]:
    inflater = zlib.decompressobj(wbits=31)
    pieces = (packed[at : at + _CHUNK] for at in range(0, len(packed), _CHUNK))
    header = b""
    for piece in pieces:
        header += inflater.decompress(piece, _header_size(dimensions) - len(header))
        if len(header) == _header_size(dimensions):
            break
    shape = _parse(header, dimensions, where)
    size = math.prod(shape)
    if size > _LARGEST_RATIO * len(packed):
        raise DataError(
            f"{printable(where)}: the header's {_product(shape)} values can't come out of "
            f"{len(packed):,} gzipped bytes"
        )
    if size > LARGEST_UNPACKED:
        raise DataError(
            f"{printable(where)}: {size:,} values are too many to unpack in memory; gunzip the "
            "file: as it is then, it is read from the disk"
        )
    values, filled = bytearray(size), 0
    for piece in chain([inflater.unconsumed_tail], pieces):
        part = inflater.decompress(piece, size - filled + 1)
        if len(part) > size - filled:
            raise DataError(
                f"{printable(where)}: trailing bytes after the header's {_product(shape)} values"
            )
        if inflater.unused_data:
            raise DataError(f"{printable(where)}: trailing bytes after the end of the gzip data")
        values[filled : filled + len(part)] = part
        filled += len(part)
    if not inflater.eof:
        raise DataError(f"{printable(where)}: the gzip data are cut off")
    if filled < size:
        raise DataError(
            f"{printable(where)}: {filled:,} values, where the header says {_product(shape)}"
        )
    return shape, values


def header(shape: tuple[int, ...]) -> bytes:
    """Return the bytes that stand before values of `shape`."""
    return struct.pack(f">{1 + len(shape)}I", _magic(len(shape)), *shape)


def _parse(header: bytes, dimensions: tuple[str, ...], where: object) -> tuple[int, ...]:
    """Return the shape that a header tells, after checking its magic number and sizes."""
    size = _header_size(dimensions)
    if len(header) < size:
        raise DataError(f"{printable(where)}: cut off in the header, after {len(header)} bytes")
    magic, *shape = struct.unpack(f">{1 + len(dimensions)}I", header[:size])
    if magic != (expected := _magic(len(dimensions))):
        raise DataError(
            f"{printable(where)}: magic number 0x{magic:08x}, where files with the "
            f"{dimensions[0]} begin 0x{expected:08x}"
        )
    for name, length in zip(dimensions, shape, strict=True):
        if length == 0:
            raise DataError(f"{printable(where)}: {name}: 0")
    return tuple(shape)


def _magic(dimensions: int) -> int:
    return 0x0800 | dimensions


def _header_size(dimensions: tuple[str, ...]) -> int:
    return 4 * (1 + len(dimensions))


def _product(shape: tuple[int, ...]) -> str:
    """Write a shape as a person would.

    >>> _product((60000, 28, 28))
    '60,000 x 28 x 28'
    """
    return " x ".join(f"{length:,}" for length in shape)
