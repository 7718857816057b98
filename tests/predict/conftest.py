"""Pictures of one seven, in every packing."""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
from PIL import Image

from nnctl.nn.functions import Array


def seven() -> Array:
    """Return a seven on white paper."""
    grey = np.full((120, 90), 255, np.uint8)
    grey[20:31, 20:71] = 0
    for row in range(31, 101):
        left = 60 - (row - 31) // 2
        grey[row, left : left + 12] = 0
    return grey


def difference(image: Array, other: Array) -> float:
    """Return how far two images are apart, in grey levels, a pixel's shift aside."""
    moves = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
    moved = [np.roll(other.astype(int), by, axis=(0, 1)) for by in moves]
    return float(min(abs(image - each).mean() for each in moved))


def packed(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """Return a part of a PNG file."""
    return len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4)


def head_of_png(side: int) -> bytes:
    """Return a PNG file that says it is so large, and ends there."""
    size = side.to_bytes(4) * 2 + bytes((8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"")


def odd_files() -> dict[str, bytes]:
    """Return files that are unusual but hold the seven, by name; names say nothing true."""
    grey = seven()
    plain = Image.fromarray(grey)
    rgb = plain.convert("RGB")
    ink = Image.fromarray(255 - grey)
    black = Image.new("L", plain.size, 0)
    white = Image.new("L", plain.size, 255)
    wide = (grey.astype(np.uint32) * 257).astype(np.uint16)
    rotated = Image.Exif()
    rotated[0x0112] = 6  # turn it right by 90 degrees
    palette = rgb.quantize(4)
    see_through = palette.copy()
    see_through.info["transparency"] = see_through.getpixel((1, 1))
    black_on_nothing = Image.fromarray((grey == 0).astype(np.uint8))  # 1 is ink, both are black
    black_on_nothing.putpalette([0] * 6)
    large = plain.resize((2700, 3600))
    return {
        "bits.png": packed(plain.convert("1"), "PNG"),
        "palette.png": packed(palette, "PNG"),
        "palette-transparent.png": packed(see_through, "PNG"),
        "black-on-nothing.png": packed(black_on_nothing, "PNG", transparency=0),
        "ink-on-nothing.png": packed(Image.merge("LA", (black, ink)), "PNG"),
        "chalk-on-nothing.png": packed(Image.merge("LA", (white, ink)), "PNG"),
        "red-on-nothing.png": packed(Image.merge("RGBA", (white, black, black, ink)), "PNG"),
        "16-bit.png": packed(Image.fromarray(wide), "PNG"),
        "16-bit.tif": packed(Image.fromarray(wide), "TIFF"),
        "dim-16-bit.png": packed(Image.fromarray(wide // 16), "PNG"),
        "32-bit.tif": packed(Image.fromarray(wide.astype(np.int32) * 9000), "TIFF"),
        "float.tif": packed(Image.fromarray((grey / 255).astype(np.float32)), "TIFF"),
        "cmyk.jpg": packed(rgb.convert("CMYK"), "JPEG", quality=95),
        "cmyk.tif": packed(rgb.convert("CMYK"), "TIFF"),
        "ycbcr.tif": packed(rgb.convert("YCbCr"), "TIFF"),
        "turned.jpg": packed(plain.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=rotated),
        "progressive.jpg": packed(rgb, "JPEG", progressive=True),
        "poor.jpg": packed(rgb, "JPEG", quality=10),
        "one-frame.gif": packed(plain, "GIF"),
        "bitmap.bmp": packed(rgb, "BMP"),
        "lossy.webp": packed(rgb, "WEBP"),
        "no-ending": packed(plain, "WEBP", lossless=True),
        "wrong-ending.jpg": packed(plain, "PNG"),
        "phone.jpg": packed(rgb, "MPO", save_all=True, append_images=[rgb.resize((45, 60))]),
        "large.jpg": packed(large, "JPEG"),
        "large.png": packed(large, "PNG"),
        "inverse.png": packed(ink, "PNG"),
    }


def unreadable_files() -> dict[str, tuple[bytes, str]]:
    """Return files that are no picture of a digit, with a word of the reason."""
    plain = Image.fromarray(seven())
    png, jpeg, tiff = packed(plain, "PNG"), packed(plain, "JPEG"), packed(plain, "TIFF")
    frames: dict[str, Any] = {"save_all": True, "append_images": [plain.rotate(90, expand=False)]}
    white = Image.new("L", (90, 120), 255)
    nan = Image.fromarray(np.full((9, 9), np.nan, np.float32))
    return {
        "empty.png": (b"", "no picture"),
        "text.png": (b"I am a picture.", "no picture"),
        "zeros.jpg": (bytes(5000), "no picture"),
        "page.html": (b"<!DOCTYPE html><title>404</title>", "no picture"),
        "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
        "scan.pdf": (packed(plain, "PDF"), "no picture"),
        "raw.ppm": (packed(plain, "PPM"), "no picture"),
        "icon.ico": (packed(plain, "ICO"), "no picture"),
        "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
        "cut.png": (png[: len(png) // 2], "damaged"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "damaged"),
        "cut.tif": (tiff[: len(tiff) // 2], "damaged|no picture"),
        "head-only.png": (png[:40], "damaged|no picture"),
        "changed.png": (png.replace(b"IDAT", b"IDAT\xff\xff", 1), "damaged|no picture"),
        "bomb.png": (head_of_png(30_000), "pixels"),
        "large.png": (head_of_png(6_400), "6,400 x 6,400 pixels"),
        "film.gif": (packed(plain, "GIF", **frames), "2 pictures"),
        "film.png": (packed(plain, "PNG", **frames), "2 pictures"),
        "film.webp": (packed(plain.convert("RGB"), "WEBP", **frames), "2 pictures"),
        "pages.tif": (packed(plain, "TIFF", **frames), "2 pictures"),
        "white.png": (packed(white, "PNG"), "nothing stands out"),
        "nothing.png": (packed(Image.new("RGBA", (90, 120)), "PNG"), "nothing stands out"),
        "not-a-number.tif": (packed(nan, "TIFF"), "not finite"),
    }


ODD, UNREADABLE = odd_files(), unreadable_files()
