"""The IDX reader takes nothing on trust."""

import gzip
import struct
import tracemalloc
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnctl.datasets import idx
from nnctl.datasets.idx import IMAGES, LABELS
from nnctl.errors import DataError

PIXELS = bytes(range(24))
RAW = struct.pack(">4I", 0x803, 2, 3, 4) + PIXELS
PACKED = gzip.compress(RAW, mtime=0)


def header(*shape: int, magic: int = 0x803) -> bytes:
    return struct.pack(f">{1 + len(shape)}I", magic, *shape)


def unpack(packed: bytes, kind: tuple[str, ...], where: str) -> npt.NDArray[np.uint8]:
    return idx.decode(idx.unpack(packed, kind, where), kind, where)


def write(folder: Path, data: bytes, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_unpack_and_map_raw_give_the_same_read_only_array(tmp_path: Path) -> None:
    expected = np.frombuffer(PIXELS, np.uint8).reshape(2, 3, 4)
    for array in (
        unpack(PACKED, IMAGES, "x"),
        idx.map_raw(write(tmp_path, RAW), IMAGES),
        idx.decode(RAW, IMAGES, "x"),
    ):
        assert array.dtype == np.uint8
        assert array.flags.c_contiguous
        assert not array.flags.writeable
        assert type(array) is np.ndarray
        np.testing.assert_array_equal(array, expected)


def test_labels_have_one_dimension() -> None:
    packed = gzip.compress(header(3, magic=0x801) + b"\x07\x02\x01")
    assert unpack(packed, LABELS, "x").tolist() == [7, 2, 1]


def test_read_shape_reads_the_header_alone(tmp_path: Path) -> None:
    assert idx.read_shape(write(tmp_path, RAW), IMAGES) == (2, 3, 4)
    cut = write(tmp_path, PACKED[:40], "cut")
    assert idx.read_shape(cut, IMAGES) == (2, 3, 4)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "cut off in the header, after 0 bytes"),
        (RAW[:15], "cut off in the header, after 15 bytes"),
        (
            header(2, 3, 4, magic=0x801) + PIXELS,
            "magic number 0x00000801, where files of images begin 0x00000803: unsigned bytes in 1 "
            "dimension, where images are unsigned bytes in three",
        ),
        (
            header(2, 3, 4, magic=0xD03) + PIXELS,
            "magic number 0x00000d03, where files of images begin 0x00000803: 32-bit floats in 3 "
            "dimensions, where images are unsigned bytes in three",
        ),
        (b"<!DOCTYPE html>...", "magic number 0x3c21444f"),
        (header(0, 3, 4), "number of images: 0"),
        (header(2, 0, 4), "rows: 0"),
        (header(2, 3, 0), "columns: 0"),
    ],
)
def test_wrong_header_is_named(tmp_path: Path, raw: bytes, problem: str) -> None:
    for read in (idx.read_shape, idx.map_raw):
        with pytest.raises(DataError) as caught:
            read(write(tmp_path, raw), IMAGES)
        assert str(caught.value).startswith(f"{tmp_path / 'file'}: {problem}")
    with pytest.raises(DataError) as caught:
        idx.unpack(gzip.compress(raw), IMAGES, "where")
    assert str(caught.value).startswith(f"where: {problem}")
    with pytest.raises(DataError) as caught:
        idx.decode(raw, IMAGES, "where")
    assert str(caught.value).startswith(f"where: {problem}")


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (RAW[:-1], "39 bytes, where the header's 2 x 3 x 4 values make 40"),
        (RAW + b"\0", "41 bytes, where the header's 2 x 3 x 4 values make 40"),
        (header(2**32 - 1, 2**32 - 1, 2**32 - 1) + PIXELS, "40 bytes, where the header's 4,294,"),
    ],
)
def test_raw_file_must_have_the_size_its_header_says(
    tmp_path: Path, raw: bytes, problem: str
) -> None:
    with pytest.raises(DataError) as caught:
        idx.map_raw(write(tmp_path, raw), IMAGES)
    assert f": {problem}" in str(caught.value)


@pytest.mark.parametrize(
    ("packed", "problem"),
    [
        (gzip.compress(RAW[:-1]), "39 bytes, where the header's 2 x 3 x 4 values make 40"),
        (gzip.compress(RAW + b"\0"), "trailing bytes after the header's 2 x 3 x 4 values"),
        (PACKED + b"\0", "trailing bytes after the end of the gzip data"),
        (PACKED + PACKED, "trailing bytes after the header's 2 x 3 x 4 values"),
        (PACKED + PACKED[:-1], "trailing bytes after the header's 2 x 3 x 4 values"),
        (PACKED + bytes(100_000), "trailing bytes after the end of the gzip data"),
        (PACKED[:-1], "the gzip data are cut off"),
        (PACKED[:-8], "the gzip data are cut off"),
        (PACKED[:-8] + bytes(8), "corrupt gzip: "),
        (PACKED[:10] + b"\xff" + PACKED[11:], "corrupt gzip: "),
        (zlib.compress(RAW), "corrupt gzip: "),
        (RAW, "corrupt gzip: "),
        (b"", "the gzip data are cut off"),
        (gzip.compress(header(2**32 - 1, 2**32 - 1, 2**32 - 1)), "values can't come out of 2"),
        (
            gzip.compress(header(60000, 28, 28) + PIXELS),
            "60,000 x 28 x 28 values can't come out of",
        ),
        (gzip.compress(header(2, 3, 4) + bytes(10**8)), "trailing bytes after the header's 2 x 3"),
    ],
)
def test_packed_file_must_hold_what_its_header_says(packed: bytes, problem: str) -> None:
    tracemalloc.start()
    with pytest.raises(DataError) as caught:
        idx.unpack(packed, IMAGES, "where\x1b[2J")
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
    assert str(caught.value).startswith(r"where\x1b[2J: ")
    assert problem in str(caught.value)


def test_packed_file_too_large_for_memory_is_refused_unread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(idx, "LARGEST_UNPACKED", 39)
    with pytest.raises(DataError, match="too many to unpack in memory; gunzip the file"):
        idx.unpack(PACKED, IMAGES, "where")


def mutated(valid: bytes) -> st.SearchStrategy[bytes]:
    """Files that are valid but for one or a few wrong bytes, a cut or an insertion."""
    place = st.integers(0, len(valid))
    flips = st.lists(st.tuples(st.integers(0, len(valid) - 1), st.integers(1, 255)), max_size=3)

    def flip(changes: list[tuple[int, int]]) -> bytes:
        data = bytearray(valid)
        for at, change in changes:
            data[at] ^= change
        return bytes(data)

    return st.one_of(
        flips.map(flip),
        place.map(lambda at: valid[:at]),
        st.tuples(place, st.binary(max_size=8)).map(lambda c: valid[: c[0]] + c[1] + valid[c[0] :]),
        st.binary(max_size=64),
    )


@settings(max_examples=300)
@given(mutated(RAW), mutated(PACKED), st.sampled_from([IMAGES, LABELS]))
def test_any_bytes_are_an_array_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, packed: bytes, kind: tuple[str, ...]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    for read in (
        lambda: idx.map_raw(write(folder, raw), kind),
        lambda: unpack(gzip.compress(raw), kind, "raw"),
        lambda: unpack(packed, kind, "packed"),
        lambda: idx.decode(raw, kind, "raw"),
        lambda: idx.read_shape(write(folder, packed, "file.gz"), kind),
    ):
        with suppress(DataError):
            read()
