"""A large PNG as bands of rows, so that it is never in memory as a whole.

Pillow decodes whole pictures. PNG packs all rows into one zlib stream and stores most of them as
differences from the row above (W3C, "Portable Network Graphics", sections 7.3 and 9). So a band
becomes a small PNG of its own: its rows as the file has them, below the last row of the band
before.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEPT = (b"PLTE", b"tRNS", b"eXIf", b"iTXt")  # colours, transparency, orientation
BAND = 500_000  # pixels that are worked on at once, about
FEW = 10  # bands
PIECE = 1 << 16  # bytes that are read at once


class Header(NamedTuple):
    """A PNG's chunk IHDR."""

    columns: int
    rows: int
    depth: int
    colour: int

    @property
    def stride(self) -> int:
        """The bytes of a row, with the one that names how it is stored."""
        samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[self.colour]
        return 1 + self.columns * samples * self.depth // 8

    def packed(self, rows: int) -> bytes:
        """Return the chunk for so many rows."""
        size = self.columns.to_bytes(4) + rows.to_bytes(4)
        return _chunk(b"IHDR", size + bytes((self.depth, self.colour, 0, 0, 0)))


def divisible(file: BinaryIO) -> Header | None:
    """Return the header of a PNG that can be divided, else None.

    It is not interlaced, and Pillow gives its rows back as they were: of 8 bits, or grey of 16.
    """
    file.seek(0)
    start = file.read(29)
    if len(start) < 29 or start[:8] != SIGNATURE or start[12:16] != b"IHDR":
        return None
    depth, colour, *_, interlaced = start[24:29]
    if interlaced or (depth != 8 and (depth, colour) != (16, 0)):
        return None
    return Header(int.from_bytes(start[16:20]), int.from_bytes(start[20:24]), depth, colour)


def band_rows(columns: int, rows: int, multiple: int) -> int:
    """Return how many rows a band has: a multiple of `multiple`, or all where bands were few."""
    each = multiple * max(1, BAND // (multiple * columns))
    return each if FEW * each < rows else rows


def bands(file: BinaryIO, header: Header, each: int) -> Iterator[Image.Image]:
    """Yield a divisible PNG's bands of `each` rows from top to bottom.

    Raises what Pillow and zlib do where the file is damaged.
    """
    from PIL import Image

    kept = b"".join(_chunk(name, file.read(length)) for name, length in _chunks(file, *KEPT))
    blocks = _blocks(file, each * header.stride)
    above = b""
    for top in range(0, header.rows, each):
        rows = min(each, header.rows - top)
        first = 1 if above else 0
        data = _chunk(b"IDAT", zlib.compress(above + next(blocks, b""), level=0))
        png = [SIGNATURE, header.packed(first + rows), kept, data, _chunk(b"IEND", b"")]
        with Image.open(io.BytesIO(b"".join(png)), formats=("PNG",)) as whole:
            band = whole.crop((0, first, header.columns, first + rows))
        last = band.crop((0, rows - 1, header.columns, rows))
        above = b"\0" + last.tobytes("raw", "I;16B" if header.depth == 16 else last.mode)
        yield band


def _chunk(name: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4)


def _chunks(file: BinaryIO, *names: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield name and length of each chunk that has one of the names, with the file at its data."""
    place = len(SIGNATURE)
    while True:
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            return
        length, name = int.from_bytes(head[:4]), head[4:]
        if name in names:
            yield name, length
        place += 12 + length


def _blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the rows as they are stored, in blocks of `size` bytes; the last may be shorter."""
    stream, block = zlib.decompressobj(), bytearray()
    for packed in _pieces(file):
        rest = packed
        while rest or not packed:
            part = stream.decompress(rest, size - len(block))
            block += part
            if len(block) == size:
                yield bytes(block)
                block.clear()
            elif not packed:
                break
            rest = stream.unconsumed_tail
    yield bytes(block)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """Yield the zlib stream in small pieces, and b"" at its end."""
    for _, length in _chunks(file, b"IDAT"):
        while length and (piece := file.read(min(length, PIECE))):
            length -= len(piece)
            yield piece
    yield b""
