"""Right data are right data however they are packed; what is no data says so in words."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from nnctl.datasets import CATALOGUE, DataSet, Source, describe, idx, load, verify
from nnctl.datasets.catalogue import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from nnctl.datasets.folder import LARGEST_COPIED
from nnctl.datasets.info import info
from nnctl.errors import DataError, SystemFailure

if TYPE_CHECKING:
    from tests.conftest import Server

Files = dict[str, bytes]
HERE = Source(offline=True)


def two_members(data: bytes) -> bytes:
    return gzip.compress(data[:5]) + gzip.compress(data[5:], 1)


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "stored": lambda data: gzip.compress(data, 0),
    "quick": lambda data: gzip.compress(data, 1, mtime=1),
    "best": lambda data: gzip.compress(data, 9, mtime=2),
    "two members": two_members,
}


@pytest.fixture
def data_dir(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of data sets, of which `tiny` is a known one that nothing is here of yet."""
    monkeypatch.setitem(CATALOGUE, "tiny", server.tiny("404"))
    return tmp_path / "data"


def fill(folder: Path, files: Files) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def contents(data: DataSet) -> Files:
    """Return the data as IDX files that are not packed."""
    parts = {
        TRAIN_IMAGES: data.train.images.reshape(-1, *data.image_shape),
        TRAIN_LABELS: data.train.labels,
        TEST_IMAGES: data.test.images.reshape(-1, *data.image_shape),
        TEST_LABELS: data.test.labels,
    }
    return {name: idx.header(a.shape) + a.tobytes() for name, a in parts.items()}


# Known sets.


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("place", ["tiny", "."])
def test_known_set_is_right_in_any_packing_under_either_name_in_either_folder(
    data_dir: Path, server: Server, raw_files: Files, place: str, suffix: str, packing: str
) -> None:
    files = {f"{name}{suffix}": PACKINGS[packing](data) for name, data in raw_files.items()}
    folder = fill(data_dir / place, files)
    for _ in range(2):  # the second may find something unpacked
        data = load("tiny", Source(data_dir))
        assert contents(data) == raw_files
        assert data.sha256 == {n: pin.sha256 for n, pin in CATALOGUE["tiny"].pins.items()}
        assert not any(array.flags.writeable for array in (*data.train, *data.test))
    assert [status.state for status in verify("tiny", Source(data_dir))] == ["ready"] * 4
    assert info("tiny", Source(data_dir)).state == "ready"
    assert names_in(folder) == set(files)
    assert server.asked == []


def test_files_of_a_known_set_may_lie_in_different_places_and_packings(
    data_dir: Path, raw_files: Files, packed_files: Files
) -> None:
    fill(data_dir / "tiny", {f"{TRAIN_IMAGES}.gz": packed_files[f"{TRAIN_IMAGES}.gz"]})
    fill(data_dir / "tiny", {TRAIN_LABELS: raw_files[TRAIN_LABELS]})
    fill(data_dir, {name: raw_files[name] for name in (TEST_IMAGES, TEST_LABELS)})
    assert contents(load("tiny", Source(data_dir, offline=True))) == raw_files


@pytest.mark.parametrize("packing", PACKINGS)
def test_wrong_pixel_is_found_in_any_packing(
    data_dir: Path, raw_files: Files, packing: str
) -> None:
    wrong = bytearray(raw_files[TRAIN_IMAGES])
    wrong[1000] ^= 1
    files = raw_files | {TRAIN_IMAGES: bytes(wrong)}
    folder = fill(data_dir / "tiny", {n: PACKINGS[packing](d) for n, d in files.items()})
    with pytest.raises(DataError) as caught:
        load("tiny", Source(data_dir, offline=True))
    assert f"{folder / TRAIN_IMAGES}: SHA-256 " in str(caught.value)
    assert TRAIN_LABELS not in str(caught.value)


def test_gzip_that_unpacks_to_more_than_it_should_is_given_up(
    data_dir: Path, raw_files: Files
) -> None:
    bomb = gzip.compress(raw_files[TRAIN_IMAGES] + bytes(10**6))
    folder = fill(data_dir / "tiny", {**raw_files, TRAIN_IMAGES: bomb})
    with pytest.raises(DataError, match="more than 156,816 bytes once unpacked"):
        load("tiny", Source(data_dir, offline=True))
    (folder / TRAIN_IMAGES).write_bytes(bytes(10**6))
    with pytest.raises(DataError, match="1,000,000 bytes, more than 161,068"):
        load("tiny", Source(data_dir, offline=True))


def test_nothing_is_renamed_before_a_good_file_has_come(
    data_dir: Path, server: Server, raw_files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = raw_files | {TRAIN_LABELS: b"x", TEST_LABELS: b"y"}
    folder = fill(data_dir / "tiny", damaged)
    with pytest.raises(DataError, match="HTTP 404"):
        load("tiny", Source(data_dir))
    assert names_in(folder) == set(raw_files)
    monkeypatch.setitem(CATALOGUE, "tiny", server.tiny("good"))
    assert contents(load("tiny", Source(data_dir))) == raw_files
    packed = {f"{TRAIN_LABELS}.gz", f"{TEST_LABELS}.gz"}
    aside = {f"{TRAIN_LABELS}.bad", f"{TEST_LABELS}.bad"}
    assert names_in(folder) == {TRAIN_IMAGES, TEST_IMAGES} | packed | aside
    assert (folder / f"{TRAIN_LABELS}.bad").read_bytes() == b"x"


def test_loose_files_of_another_set_are_left_alone(
    data_dir: Path, server: Server, raw_files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = dict.fromkeys(raw_files, b"other")
    fill(data_dir, others)
    assert info("tiny", Source(data_dir)).state == "missing"
    with pytest.raises(DataError) as caught:
        load("tiny", Source(data_dir, offline=True))
    assert f"{data_dir / TRAIN_IMAGES}: 5 bytes, not " in str(caught.value)
    assert "meant?" not in str(caught.value)
    monkeypatch.setitem(CATALOGUE, "tiny", server.tiny("good"))
    assert contents(load("tiny", Source(data_dir))) == raw_files
    assert {name: (data_dir / name).read_bytes() for name in others} == others


def test_pins_of_the_bundled_sample_are_those_of_its_files() -> None:
    for status in verify("mnist-sample", HERE):
        pin = CATALOGUE["mnist-sample"].pins[status.path.name]
        packed = status.path.read_bytes()
        assert (len(packed), status.sha256) == (pin.size, pin.sha256)
        assert len(gzip.decompress(packed)) == pin.unpacked_size
        assert sha256(gzip.decompress(packed)) == pin.unpacked_sha256


def sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


# Folders.


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_folder_is_read_in_any_packing_under_either_name(
    tmp_path: Path, raw_files: Files, suffix: str, packing: str
) -> None:
    folder = fill(tmp_path, {f"{n}{suffix}": PACKINGS[packing](d) for n, d in raw_files.items()})
    data = load(str(folder), HERE)
    assert contents(data) == raw_files
    assert data.sha256 == {name: sha256(content) for name, content in raw_files.items()}
    assert {status.state for status in verify(str(folder), HERE)} == {"ready"}


NEAR_MISSES = [
    "train-images.idx3-ubyte",
    "train-images.idx3-ubyte.gz",
    "emnist-digits-train-images-idx3-ubyte.gz",
    "qmnist-train-images-idx3-ubyte",
    "Train_Images_IDX3_UByte",
    "train-images-idx3-ubyte.zip",
    "train-images-idx3-ubyte (1).gz",
]


@pytest.mark.parametrize("name", NEAR_MISSES)
@pytest.mark.parametrize("where", ["folder", "tiny", "."])
def test_near_miss_is_named(data_dir: Path, raw_files: Files, name: str, where: str) -> None:
    images = raw_files.pop(TRAIN_IMAGES)
    files = {**raw_files, name: images, "train-images-idx3-ubyte.bad": b"", "notes.txt": b""}
    folder = fill(data_dir / where, files)
    data_set = str(folder) if where == "folder" else "tiny"
    with pytest.raises(DataError) as caught:
        load(data_set, Source(data_dir, offline=True))
    (line,) = [line for line in str(caught.value).splitlines() if f"is {name} meant?" in line]
    verb = "Unpack" if name.endswith(".zip") else "Rename"
    assert f"{verb} it to {TRAIN_IMAGES}" in line
    (missing,) = [s for s in verify(data_set, Source(data_dir)) if s.state == "missing"]
    assert f"is {name} meant?" in missing.problem


@pytest.mark.parametrize("name", ["t10k-images.idx3-ubyte", "emnist-digits-test-images-idx3-ubyte"])
def test_near_miss_of_a_test_file_is_not_taken_for_a_training_file(
    tmp_path: Path, raw_files: Files, name: str
) -> None:
    del raw_files[TEST_IMAGES]
    problems = {s.path.name: s.problem for s in verify(str(fill(tmp_path, raw_files)), HERE)}
    assert problems[TEST_IMAGES] == "missing"
    fill(tmp_path, {name: b""})
    (tmp_path / TRAIN_IMAGES).unlink()
    problems = {s.path.name: s.problem for s in verify(str(tmp_path), HERE)}
    assert f"is {name} meant?" in problems[TEST_IMAGES]
    assert problems[TRAIN_IMAGES] == "missing"


# Labels in other types.

WIDER = {"i1": 0x09, ">i2": 0x0B, ">i4": 0x0C}


def labels_file(values: np.ndarray, code: int) -> bytes:
    sizes = struct.pack(f">{values.ndim}I", *values.shape)
    return struct.pack(">I", code << 8 | values.ndim) + sizes + values.tobytes()


@pytest.mark.parametrize("packing", ["raw", "best"])
@pytest.mark.parametrize("columns", [0, 1, 8])
@pytest.mark.parametrize("dtype", WIDER)
def test_labels_are_read_from_wider_integers_and_from_tables(
    tmp_path: Path, raw_files: Files, dtype: str, columns: int, packing: str
) -> None:
    labels = np.arange(200) % 10
    values = labels.astype(dtype)
    if columns:
        values = np.full((200, columns), 77, dtype)
        values[:, 0] = labels
    wide = {TRAIN_LABELS: PACKINGS[packing](labels_file(values, WIDER[dtype]))}
    data = load(str(fill(tmp_path, raw_files | wide)), HERE)
    assert data.train.labels.dtype == np.uint8
    assert data.train.labels.tolist() == labels.tolist()
    assert data.train.labels.flags.c_contiguous
    assert not data.train.labels.flags.writeable


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            TRAIN_LABELS,
            labels_file(np.array([3, 256] * 100, ">i2"), 0x0B),
            "label 256 at position 1, where labels are numbered from 0 to 255",
        ),
        (
            TRAIN_LABELS,
            labels_file(np.array([3, -1] * 100, ">i4"), 0x0C),
            "label -1 at position 1, where labels",
        ),
        (
            TRAIN_LABELS,
            labels_file(np.zeros((200, 3), ">i4"), 0x0C),
            "a table of 3 columns; of tables only QMNIST's labels are known, with 8 columns",
        ),
        (
            TRAIN_LABELS,
            labels_file(np.zeros(200, ">f4"), 0x0D),
            "32-bit floats in 1 dimension, where labels are integers in one",
        ),
        (
            TRAIN_IMAGES,
            labels_file(np.zeros((200, 28, 28), ">i2"), 0x0B),
            "16-bit integers in 3 dimensions, where images are unsigned bytes in three",
        ),
        (
            TRAIN_IMAGES,
            labels_file(np.zeros((200, 784), "u1"), 0x08),
            "unsigned bytes in 2 dimensions, where images are unsigned bytes in three",
        ),
        (
            TRAIN_IMAGES,
            labels_file(np.zeros((200, 784), ">f8"), 0x0E),
            "64-bit floats in 2 dimensions, where images",
        ),
    ],
)
def test_what_cannot_be_read_without_doubt_is_refused_in_words(
    tmp_path: Path, raw_files: Files, name: str, content: bytes, words: str
) -> None:
    for packing in ("raw", "best"):
        folder = fill(tmp_path, raw_files | {name: PACKINGS[packing](content)})
        with pytest.raises(DataError) as caught:
            load(str(folder), HERE)
        assert str(caught.value).startswith(f"{folder / name}: ")
        assert words in str(caught.value)


# The test pair alone.


def test_test_pair_alone_serves_where_only_it_is_asked_for(
    tmp_path: Path, raw_files: Files
) -> None:
    pair = {name: raw_files[name] for name in (TEST_IMAGES, TEST_LABELS)}
    folder = str(fill(tmp_path, pair))
    assert describe(folder, parts=("test",)).test_samples == 30
    data = load(folder, HERE, parts=("test",))
    assert data.test.images.shape == (30, 784)
    assert data.train.images.shape == (0, 784)
    assert data.sha256 == {name: sha256(content) for name, content in pair.items()}
    assert not data.mnist_like
    with pytest.raises(DataError, match=f"{TRAIN_IMAGES}: missing"):
        load(folder, HERE)


def test_training_pair_is_not_read_where_only_the_test_pair_is_asked_for(
    tmp_path: Path, raw_files: Files
) -> None:
    folder = str(fill(tmp_path, raw_files | {TRAIN_IMAGES: b"damaged"}))
    assert len(load(folder, HERE, parts=("test",)).test.labels) == 30


# What others do to the files meanwhile.

CUT = """
import os, sys
from pathlib import Path
from nnctl.datasets import CATALOGUE, Source, load
sys.path.insert(0, sys.argv[1])
from conftest import PINS, RAW_FILES
from nnctl.datasets.catalogue import KnownSet
CATALOGUE["tiny"] = KnownSet("tiny", 200, 30, PINS, ("http://nowhere.invalid/",))
folder = Path(sys.argv[2])
folder.mkdir()
for name, data in RAW_FILES.items():
    (folder / name).write_bytes(data)
data = load(sys.argv[3], Source(folder.parent, offline=True))
for name in RAW_FILES:
    os.truncate(folder / name, 0)
print(int(data.train.images.sum()) + int(data.test.labels.sum()) > 0)
"""


@pytest.mark.parametrize("name", ["tiny", "./tiny/"])
def test_raw_file_cut_in_place_does_not_end_the_process(tmp_path: Path, name: str) -> None:
    here = str(Path(__file__).parents[1])
    script = [sys.executable, "-c", CUT, here, str(tmp_path / "tiny"), name]
    result = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "True\n"), result.stderr


def test_only_what_is_too_large_to_copy_is_mapped(
    tmp_path: Path, raw_files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped: list[str] = []
    original = idx.map_raw

    def spy(path: Path, dimensions: tuple[str, ...]) -> object:
        mapped.append(path.name)
        return original(path, dimensions)

    monkeypatch.setattr(idx, "map_raw", spy)
    folder = str(fill(tmp_path, raw_files))
    assert len(raw_files[TRAIN_IMAGES]) < LARGEST_COPIED
    load(folder, HERE)
    assert mapped == []
    monkeypatch.setattr("nnctl.datasets.folder.LARGEST_COPIED", 100_000)
    assert contents(load(folder, HERE)) == raw_files
    assert mapped == [TRAIN_IMAGES]


@pytest.mark.parametrize("name", ["tiny", "folder"])
def test_what_cannot_be_seen_is_not_absent(
    data_dir: Path, server: Server, raw_files: Files, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fill(data_dir / name, raw_files)
    original = os.stat

    def denied(path: object, **options: object) -> os.stat_result:
        if str(path).startswith(str(folder)):
            raise PermissionError(13, "Permission denied")
        return original(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", denied)
    with pytest.raises(SystemFailure, match="permission denied"):
        load("tiny" if name == "tiny" else str(folder), Source(data_dir))
    assert server.asked == []
