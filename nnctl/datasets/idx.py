"""The IDX format of MNIST: bytes -> arrays, and not one byte taken on trust.

A file is a magic number (0, 0, the type of its values, the number of dimensions), one big-endian
32-bit size for each dimension, and the values. Hides gzip, which is recognised by its first two
bytes, memory mapping and every check: whatever a file holds, the outcome is an array or a
`DataError` that names the file and the field, and memory is claimed only after the sizes have
been found plausible.

Images are unsigned bytes in three dimensions. Labels have one; wider integers are read too where
the values fit into a byte, and so is QMNIST's table, a row of eight integers for each image of
which the first is the label (Yadav and Bottou 2019, "Cold case: the lost MNIST digits").
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
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

TYPES = {  # code: its name, the values in NumPy's notation
    0x08: ("unsigned bytes", "u1"),
    0x09: ("signed bytes", "i1"),
    0x0B: ("16-bit integers", ">i2"),
    0x0C: ("32-bit integers", ">i4"),
    0x0D: ("32-bit floats", ">f4"),
    0x0E: ("64-bit floats", ">f8"),
}
INTEGERS = ("u1", "i1", ">i2", ">i4")
QMNIST_COLUMNS = 8

GZIP = b"\x1f\x8b"
LARGEST_UNPACKED = 2**31
# Deflate packs at most 1032 bytes into one: a header that promises more is wrong.
_LARGEST_RATIO = 1032
_CHUNK = 2**16
_HEAD = 16  # bytes of the longest header that is read


@dataclass(frozen=True)
class Header:
    """What a header says of the values behind it."""

    shape: tuple[int, ...]
    dtype: str  # in NumPy's notation

    @property
    def size(self) -> int:
        """The bytes of the header itself."""
        return 4 * (1 + len(self.shape))

    @property
    def file_size(self) -> int:
        """The bytes of the whole file, unpacked."""
        return self.size + math.prod(self.shape) * int(self.dtype[-1])


def is_gzip(data: bytes) -> bool:
    """Return whether `data` begins as a gzip file does; no IDX file begins so."""
    return data[:2] == GZIP


def read_shape(path: Path, dimensions: tuple[str, ...]) -> tuple[int, ...]:
    """Return the size of each dimension from the header of `path`; reads no values.

    Raises `DataError`, and `OSError` as it comes.
    """
    header = _read_header(path, dimensions)
    return header.shape[: len(dimensions)]


def map_raw(path: Path, dimensions: tuple[str, ...]) -> Array:
    """Return the values of a file that isn't packed, memory-mapped and read-only.

    Whoever cuts the file in place meanwhile ends the process by SIGBUS.
    """
    import numpy as np

    header = _read_header(path, dimensions)
    values = np.memmap(path, header.dtype, mode="r", offset=header.size, shape=header.shape)
    return _as_bytes(np.asarray(values), path)


def decode(data: bytes | bytearray, dimensions: tuple[str, ...], where: object) -> Array:
    """Return the values of an unpacked file of content `data`, read-only; `where` names it."""
    import numpy as np

    header = _parse(data[:_HEAD], dimensions, where)
    _check_size(len(data), header, where)
    values = np.frombuffer(memoryview(data).toreadonly(), header.dtype, offset=header.size)
    return _as_bytes(values.reshape(header.shape), where)


def unpack(packed: bytes, dimensions: tuple[str, ...], where: object) -> bytearray:
    """Return the content of the gzipped file `packed`, as long as its header says."""
    pieces = inflate(packed, where)
    head = _head(pieces)
    header = _parse(head, dimensions, where)
    size = header.file_size
    if size > _LARGEST_RATIO * len(packed):
        raise DataError(
            f"{printable(where)}: the header's {_product(header.shape)} values can't come out of "
            f"{len(packed):,} gzipped bytes"
        )
    if size > LARGEST_UNPACKED:
        raise DataError(
            f"{printable(where)}: {size:,} bytes are too many to unpack in memory; gunzip the "
            "file: as it is then, it is read from the disk"
        )
    data, filled = bytearray(size), 0
    while head:
        if len(head) > size - filled:
            raise DataError(
                f"{printable(where)}: trailing bytes after the header's "
                f"{_product(header.shape)} values"
            )
        data[filled : filled + len(head)] = head
        filled += len(head)
        head = bytearray(next(pieces, b""))
    _check_size(filled, header, where)
    return data


def inflate(packed: bytes, where: object) -> Iterator[bytes]:
    """Yield what is in gzipped `packed`, of however many members, in pieces of 64 KiB at most."""
    start = 0
    while True:
        inflater, at = zlib.decompressobj(wbits=31), start
        while not inflater.eof:
            if at >= len(packed):
                raise DataError(f"{printable(where)}: the gzip data are cut off")
            piece = packed[at : at + _CHUNK]
            at += len(piece)
            more = True
            while more:
                try:
                    out = inflater.decompress(piece, _CHUNK)
                except zlib.error as error:
                    raise DataError(f"{printable(where)}: corrupt gzip: {error}") from error
                if out:
                    yield out
                piece = inflater.unconsumed_tail
                more = bool(piece) or len(out) == _CHUNK
        start = at - len(inflater.unused_data)
        if start == len(packed):
            return
        if not is_gzip(packed[start : start + 2]):
            raise DataError(f"{printable(where)}: trailing bytes after the end of the gzip data")


def header(shape: tuple[int, ...]) -> bytes:
    """Return the bytes that stand before unsigned bytes of `shape`."""
    return struct.pack(f">{1 + len(shape)}I", 0x0800 | len(shape), *shape)


def _head(pieces: Iterator[bytes]) -> bytearray:
    """Return the first of what is unpacked: as much as a header may need, or all there is."""
    head = bytearray()
    for piece in pieces:
        head += piece
        if len(head) >= _HEAD:
            break
    return head


def _read_header(path: Path, dimensions: tuple[str, ...]) -> Header:
    """Return the header of a file, gzipped or not; one that isn't must have the size it says."""
    with open(path, "rb") as stream:
        head, length = stream.read(_CHUNK), os.fstat(stream.fileno()).st_size
    if is_gzip(head):
        return _parse(_head(inflate(head, path)), dimensions, path)
    header = _parse(head, dimensions, path)
    _check_size(length, header, path)
    return header


def _check_size(length: int, header: Header, where: object) -> None:
    if length != header.file_size:
        raise DataError(
            f"{printable(where)}: {length:,} bytes, where the header's {_product(header.shape)} "
            f"values make {header.file_size:,}"
        )


def _parse(head: bytes | bytearray, dimensions: tuple[str, ...], where: object) -> Header:
    """Return what the bytes at the start of a file say, once they fit the kind of file."""
    if len(head) < 4:
        raise DataError(f"{printable(where)}: cut off in the header, after {len(head)} bytes")
    (magic,) = struct.unpack(">I", head[:4])
    code, count = magic >> 8, magic & 0xFF
    what = dimensions[0].removeprefix("number of ")
    expected = 0x0800 | len(dimensions)
    begin = f"where files of {what} begin 0x{expected:08x}"
    if code not in TYPES:
        raise DataError(f"{printable(where)}: magic number 0x{magic:08x}, {begin}")
    noun, dtype = TYPES[code]
    labels = dimensions == LABELS
    if not (count == len(dimensions) or (labels and count == 2)) or (
        dtype not in INTEGERS if labels else dtype != "u1"
    ):
        allowed = "integers in one" if labels else "unsigned bytes in three"
        raise DataError(
            f"{printable(where)}: magic number 0x{magic:08x}, {begin}: {noun} in {count} "
            f"{'dimension' if count == 1 else 'dimensions'}, where {what} are {allowed}"
        )
    size = 4 * (1 + count)
    if len(head) < size:
        raise DataError(f"{printable(where)}: cut off in the header, after {len(head)} bytes")
    shape = struct.unpack(f">{count}I", head[4:size])
    for name, length in zip((*dimensions, "columns"), shape, strict=False):
        if length == 0:
            raise DataError(f"{printable(where)}: {name}: 0")
    if labels and count == 2 and shape[1] not in (1, QMNIST_COLUMNS):
        raise DataError(
            f"{printable(where)}: a table of {shape[1]:,} columns; of tables only QMNIST's labels "
            f"are known, with {QMNIST_COLUMNS} columns"
        )
    return Header(shape, dtype)


def _as_bytes(values: npt.NDArray[np.generic], where: object) -> Array:
    """Return values as unsigned bytes, read-only; of a table of labels its first column."""
    import numpy as np

    if values.ndim == 2:
        values = values[:, 0]
    if values.dtype != np.uint8:
        wrong = (values < 0) | (values > 255)  # type: ignore[operator]  # they are integers
        if wrong.any():
            at = int(wrong.argmax())
            raise DataError(
                f"{printable(where)}: label {values[at]} at position {at:,}, where labels are "
                "numbered from 0 to 255"
            )
    values = np.ascontiguousarray(values, np.uint8)
    values.flags.writeable = False
    return values  # type: ignore[return-value]


def _product(shape: tuple[int, ...]) -> str:
    """Write a shape as a person would.

    >>> _product((60000, 28, 28))
    '60,000 x 28 x 28'
    """
    return " x ".join(f"{length:,}" for length in shape)
