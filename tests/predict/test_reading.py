"""Pictures are read in whatever packing they come, or refused in words."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from nnctl.errors import DataError
from nnctl.pictures.preparation import Digit, prepare
from nnctl.pictures.reading import LARGEST, read, read_file
from tests.predict.conftest import ODD, UNREADABLE, difference, seven


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


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_bomb_of_900_million_pixels_is_refused_in_little_memory(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(UNREADABLE["bomb.png"][0])
    script = (
        "import re, sys\n"
        "from nnctl.errors import DataError\n"
        "from nnctl.pictures.reading import read_file\n"
        "try: read_file(sys.argv[1])\n"
        "except DataError as error: print(error)\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read()).group(1))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "bomb.png")], capture_output=True, text=True
    )
    reason, kilobytes = done.stdout.splitlines()
    assert "pixels" in reason
    assert int(kilobytes) < 100_000
