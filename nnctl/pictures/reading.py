"""Pictures from files: any common format by content, as grey levels, or a reason why not.

Hides Pillow and its traps: decompression bombs, transparency, palettes, 16 bits, CMYK, the
orientation in EXIF data, decoders that raise whatever comes to hand. A large picture is shrunk band
by band, for Pillow takes up to four bytes a pixel for the whole and for each copy in another mode.
"""

from __future__ import annotations

import io
import math
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from nnctl.errors import DataError, UsageError, printable
from nnctl.nn.functions import Array
from nnctl.pictures.bands import band_rows, bands, divisible

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")  # the well-tested decoders
MAX_PIXELS = 40_000_000
MAX_BYTES = 40_000_000  # that come through a pipe
LARGEST = 800  # pixels of a side that are worked on; what is larger is shrunk
ORIENTATION = 0x0112  # the EXIF tag


@dataclass(frozen=True)
class Picture:
    """A picture in grey, turned the right way up."""

    grey: Array  # (rows, columns), uint8, 0 black
    rows: int  # of the file's picture
    columns: int
    shrunk: int  # so many of its pixels, each way, are one of `grey`


def check_installed() -> None:
    """Raise `UsageError` if the extra [pictures] is not installed."""
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise UsageError(
            "pictures are read with Pillow, which is not installed\n"
            "install it with: pip install 'nnctl[pictures]'"
        ) from None


def read_file(name: str) -> Picture:
    """Return the picture in file `name`; - is standard input.

    Raises:
        DataError: it can't be opened or read, is damaged, too large, no picture, or more than one.

    """
    try:
        if name == "-" and sys.stdin is None:
            raise DataError("standard input is closed")
        if name == "-":
            return read(_buffered(sys.stdin.buffer))
        with open(name, "rb") as file:
            return read(file if file.seekable() else _buffered(file))
    except IsADirectoryError:
        raise DataError("a folder; name the pictures in it") from None
    except OSError as error:
        raise DataError(str(error.strerror or error)) from None


def _buffered(stream: BinaryIO) -> BinaryIO:
    """Return what comes through a pipe as a file."""
    data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise DataError(f"longer than {MAX_BYTES:,} bytes")
    return io.BytesIO(data)


def read(file: BinaryIO) -> Picture:
    """Return the picture in a file that was opened for reading.

    Raises:
        DataError: it is damaged, too large, no picture, or more than one.

    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata that don't matter, and of `_read`'s limit
            with Image.open(file, formats=FORMATS) as image:
                return _read(image, file)
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"no picture that can be read ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise DataError(f"more than {MAX_PIXELS:,} pixels") from None
    except MemoryError:
        raise
    except Exception as error:  # decoders raise what the bytes make them
        raise DataError(f"damaged: {printable(error) or type(error).__name__}") from None


def _read(image: Image.Image, file: BinaryIO) -> Picture:
    from PIL import ImageOps

    columns, rows = image.size
    if columns * rows > MAX_PIXELS:
        raise DataError(f"{columns:,} x {rows:,} pixels; at most {MAX_PIXELS:,} are read")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a phone's JPEG with a preview behind it
        raise DataError(f"{frames} pictures in one file; save the one you mean by itself")
    image.draft("L", (LARGEST, LARGEST))  # lets a large JPEG be decoded at a fraction of its size
    factor = max(1, math.ceil(max(image.size) / LARGEST))
    shrunk = factor * max(1, round(max(columns, rows) / max(image.size)))
    small = _shrunk(image, file, factor)
    stored = small.size
    ImageOps.exif_transpose(small, in_place=True)
    if small.size != stored:
        rows, columns = columns, rows
    return Picture(_grey(small), rows, columns, shrunk)


def _shrunk(image: Image.Image, file: BinaryIO, factor: int) -> Image.Image:
    """Return the image `factor` times smaller, not yet turned the right way up."""
    from PIL import Image

    each = band_rows(*image.size, factor)
    header = divisible(file) if each < image.height else None
    if not header:
        image.load()
    columns, rows = (math.ceil(side / factor) for side in image.size)
    small, top = None, 0
    for band in bands(file, header, each) if header else _cut(image, each):
        part = _shrinkable(band).reduce(factor)
        if small is None:
            small = Image.new(part.mode, (columns, rows))
            small.getexif()[ORIENTATION] = band.getexif().get(ORIENTATION, 1)
        small.paste(part, (0, top))
        top += part.height
    assert small is not None
    return small


def _cut(image: Image.Image, each: int) -> Iterator[Image.Image]:
    """Yield an image's bands of `each` rows from top to bottom."""
    for top in range(0, image.height, each):
        box = 0, top, image.width, min(top + each, image.height)
        yield image.crop(box) if each < image.height else image


def _shrinkable(image: Image.Image) -> Image.Image:
    """Return the image in a mode whose pixels can be averaged."""
    if "transparency" in image.info or image.mode == "PA":
        return image.convert("RGBA")
    if image.mode[0] in "IF":
        return image.convert("F")
    if image.mode == "P":
        return image.convert("RGB")
    return image.convert("L") if image.mode == "1" else image


def _grey(image: Image.Image) -> Array:
    """Return a shrunk image in grey."""
    if image.mode == "F":
        return _bytes(np.asarray(image))
    if "A" in image.mode.upper().replace("LAB", ""):
        return _on_a_page(image.convert("RGBA"))
    if image.mode == "LAB":
        return np.asarray(image.getchannel("L"))
    return np.asarray(image if image.mode == "L" else image.convert("RGB").convert("L"))


def _bytes(values: Array) -> Array:
    """Return numbers of any range, as cameras and microscopes fill 16 bits, spread over 0..255."""
    if not np.isfinite(values).all():
        raise DataError("pixels that are not finite numbers")
    low, high = float(values.min()), float(values.max())
    grey: Array = np.floor((values - low) * (255 / max(high - low, 1e-30)) + 0.5).astype(np.uint8)
    return grey


def _on_a_page(image: Image.Image) -> Array:
    """Return ink on transparency as ink on the page that it stands out from: white or black."""
    alpha = np.asarray(image.getchannel("A")) / np.float32(255)
    grey: Any = np.asarray(image.convert("RGB").convert("L"))
    if not alpha.any():
        return np.full(grey.shape, 255, np.uint8)
    ink = float((grey * alpha).sum() / alpha.sum())
    page = 255 if ink < 128 else 0
    shown: Array = np.floor(page + (grey - np.float32(page)) * alpha + 0.5).astype(np.uint8)
    return shown
