"""Pictures are read in whatever packing they come, or refused in words."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nnctl.errors import DataError
from nnctl.pictures.bands import bands, divisible
from nnctl.pictures.preparation import Digit, prepare
from nnctl.pictures.reading import LARGEST, ORIENTATION, read, read_file
from tests.predict.conftest import ODD, UNREADABLE, chunk, difference, packed, seven


def digits(data: bytes) -> list[Digit]:
    found = prepare(read(io.BytesIO(data)).grey).digits
    if not found:
        raise DataError("nothing stands out")
    return found


@pytest.mark.parametrize("name", ODD)
def test_odd_but_readable_file_gives_the_same_digit(name: str) -> None:
    [expected] = prepare(seven()).digits
    picture = read(io.BytesIO(ODD[name]))
    assert picture.grey.dtype == np.uint8
    [digit] = prepare(picture.grey).digits
    assert difference(digit.image, expected.image) < 4


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_file_is_refused_with_its_reason(name: str) -> None:
    data, reason = UNREADABLE[name]
    with pytest.raises(DataError, match=reason) as caught:
        digits(data)
    assert all(line.isprintable() for line in str(caught.value).split("\n"))


@pytest.mark.parametrize("name", ["bits.png", "cmyk.jpg", "16-bit.png", "one-frame.gif"])
def test_no_cut_or_flipped_byte_ends_in_anything_but_a_picture_or_a_reason(name: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(ODD[name])
        data[int(rng.integers(len(data)))] ^= int(rng.integers(1, 256))
        for damaged in (bytes(data), bytes(data[: rng.integers(len(data))])):
            with suppress(DataError):
                read(io.BytesIO(damaged))


def test_large_pictures_are_shrunk_and_say_by_how_much() -> None:
    for name in ("large.png", "large.jpg"):
        picture = read(io.BytesIO(ODD[name]))
        assert max(picture.grey.shape) <= LARGEST
        assert (picture.rows, picture.columns) == (3600, 2700)
        assert picture.grey.shape[0] * picture.shrunk == pytest.approx(3600, abs=picture.shrunk)


def test_turned_picture_tells_its_size_the_right_way_up() -> None:
    picture = read(io.BytesIO(ODD["turned.jpg"]))
    assert (picture.rows, picture.columns) == seven().shape == picture.grey.shape


def test_file_that_is_not_there_or_a_folder_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.png", tmp_path):
        with pytest.raises(DataError):
            read_file(str(path))


def noise(mode: str) -> Image.Image:
    """Return 851 x 401 pixels of slopes and noise, so that a PNG stores rows in all its ways."""
    rng = np.random.default_rng(0)
    smooth = np.linspace(0, 200, 851)[None, :] + np.linspace(0, 50, 401)[:, None]
    grey = (smooth + rng.integers(0, 6, smooth.shape)).astype(np.uint8)
    grey[200:250] = rng.integers(0, 256, (50, 851))
    if mode == "I;16":
        return Image.fromarray(grey.astype(np.uint16) * 199 + rng.integers(0, 199, dtype=np.uint16))
    bands = [Image.fromarray(np.roll(grey, 200 * i, axis=1)) for i in range(4)]
    if mode in ("P", "1"):
        return Image.merge("RGB", bands[:3]).convert(mode)
    return Image.merge(mode, bands[: len(Image.new(mode, (1, 1)).getbands())])


@pytest.mark.parametrize(
    ("mode", "transparency"),
    [
        *((mode, None) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        *(("L", 7), ("P", 7), ("RGB", (0, 0, 0))),
    ],
)
def test_large_png_read_in_bands_is_what_it_is_as_a_whole(
    mode: str, transparency: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {} if transparency is None else {"transparency": transparency}
    data = packed(noise(mode), "PNG", **options)
    monkeypatch.setattr("nnctl.pictures.bands.BAND", 10_000)
    opened = Image.open(io.BytesIO(data))
    divided = divisible(io.BytesIO(data))
    assert (divided is None) == (opened.mode == "1")
    if divided:
        parts = [np.asarray(part) for part in bands(io.BytesIO(data), divided, 9)]
        assert [len(part) for part in parts] == [9] * 44 + [5]
        np.testing.assert_array_equal(np.concatenate(parts), np.asarray(opened))
    banded = read(io.BytesIO(data))
    monkeypatch.setattr("nnctl.pictures.reading.divisible", lambda file: None)
    monkeypatch.setattr("nnctl.pictures.bands.BAND", 100_000_000)
    np.testing.assert_array_equal(banded.grey, read(io.BytesIO(data)).grey)


@pytest.mark.parametrize(
    ("depth", "colour", "interlaced", "is_divisible"),
    [(8, 2, 0, True), (16, 0, 0, True), (8, 2, 1, False), (16, 2, 0, False), (4, 3, 0, False)],
)
def test_png_is_divided_only_where_that_loses_nothing(
    depth: int, colour: int, interlaced: int, is_divisible: bool
) -> None:
    size = (900).to_bytes(4) * 2 + bytes((depth, colour, 0, 0, interlaced))
    file = io.BytesIO(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size))
    assert (divisible(file) is not None) == is_divisible


@pytest.mark.parametrize("late", [False, True])
def test_large_png_is_turned_the_right_way_up(late: bool) -> None:
    large = Image.fromarray(seven()).resize((1800, 2400))
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # turn it right by 90 degrees
    data = packed(large.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    if late:  # the chunk may also come after the pixels
        start = data.index(b"eXIf") - 4
        end = start + 12 + int.from_bytes(data[start : start + 4])
        data = data[:start] + data[end:-12] + data[start:end] + data[-12:]
    picture = read(io.BytesIO(data))
    assert (picture.rows, picture.columns) == (2400, 1800)
    [digit], [expected] = prepare(picture.grey).digits, prepare(seven()).digits
    assert difference(digit.image, expected.image) < 4


def test_damaged_large_png_is_a_picture_or_a_reason() -> None:
    data = packed(noise("RGB"), "PNG")
    for cut in (len(data) // 3, len(data) - 300):
        with pytest.raises(DataError, match="damaged"):
            read(io.BytesIO(data[:cut]))
    rng = np.random.default_rng(0)
    for _ in range(20):
        changed = bytearray(data)
        changed[int(rng.integers(len(data)))] ^= int(rng.integers(1, 256))
        with suppress(DataError):
            read(io.BytesIO(changed))


def peak_memory(data: bytes, folder: Path) -> tuple[str, int]:
    """Return what a process of its own says of a picture, and the megabytes that it took."""
    (folder / "picture").write_bytes(data)
    script = (
        "import re, sys\n"
        "from nnctl.errors import DataError\n"
        "from nnctl.pictures.reading import read_file\n"
        "try: print(read_file(sys.argv[1]).grey.shape)\n"
        "except DataError as error: print(error)\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read()).group(1))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder / "picture")], capture_output=True, text=True
    )
    said, kilobytes = done.stdout.splitlines()
    return said, int(kilobytes) // 1000


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")


@on_linux
def test_bomb_of_900_million_pixels_is_refused_in_little_memory(tmp_path: Path) -> None:
    said, megabytes = peak_memory(UNREADABLE["bomb.png"][0], tmp_path)
    assert "pixels" in said
    assert megabytes < 100


@on_linux
@pytest.mark.parametrize(("depth", "colour", "bits"), [(8, 6, 32), (4, 3, 4)])
def test_png_of_40_million_pixels_is_read_in_little_memory(
    depth: int, colour: int, bits: int, tmp_path: Path
) -> None:
    side = 6_320
    size = side.to_bytes(4) * 2 + bytes((depth, colour, 0, 0, 0))
    rows = zlib.compress(bytes((1 + side * bits // 8) * side), level=1)
    colours = chunk(b"PLTE", bytes(range(48)))
    parts = chunk(b"IHDR", size) + colours + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    said, megabytes = peak_memory(b"\x89PNG\r\n\x1a\n" + parts, tmp_path)
    assert said == "(790, 790)"
    assert megabytes < 100
