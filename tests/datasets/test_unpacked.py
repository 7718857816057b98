"""What is kept unpacked saves time, and is made anew when it is damaged."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from nnctl.datasets import CATALOGUE, DataSet, Source, idx, load, unpacked
from nnctl.datasets.catalogue import TRAIN_IMAGES, KnownSet, Pin
from nnctl.files import bundled

Files = dict[str, bytes]


@pytest.fixture(autouse=True)
def _tiny_is_known(tiny_pins: dict[str, Pin], monkeypatch: pytest.MonkeyPatch) -> None:
    known = KnownSet("tiny", 200, 30, tiny_pins, ("http://nowhere.invalid/",))
    monkeypatch.setitem(CATALOGUE, "tiny", known)


@pytest.fixture
def kept(warm: Path) -> Path:
    """Where they are kept unpacked."""
    return warm.parent / unpacked.FOLDER / "tiny"


def read(warm: Path) -> DataSet:
    return load("tiny", Source(warm.parent, offline=True))


def same(one: DataSet, other: DataSet) -> bool:
    pairs = zip((*one.train, *one.test), (*other.train, *other.test), strict=True)
    return one.sha256 == other.sha256 and all(np.array_equal(a, b) for a, b in pairs)


def test_second_load_maps_what_the_first_one_unpacked(
    warm: Path, kept: Path, raw_files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read(warm)
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == raw_files

    def forbidden(*args: object) -> None:
        raise AssertionError

    monkeypatch.setattr(idx, "unpack", forbidden)
    monkeypatch.setattr(unpacked, "write_atomically", forbidden)
    second = read(warm)
    assert same(first, second)
    assert not second.train.images.flags.writeable


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def other_images(path: Path) -> None:
    values = np.zeros((200, 28, 28), np.uint8)
    path.write_bytes(idx.header(values.shape) + values.tobytes())


def dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    "damage",
    [
        partial(flip, at=3),
        partial(flip, at=50_000),
        cut,
        lambda path: os.truncate(path, 0),
        other_images,
        dangle,
    ],
)
def test_damaged_copy_is_not_used_and_made_anew(
    warm: Path, kept: Path, raw_files: Files, damage: Callable[[Path], None]
) -> None:
    first = read(warm)
    copy = kept / TRAIN_IMAGES
    damage(copy)
    assert same(first, read(warm))
    assert copy.read_bytes() == raw_files[TRAIN_IMAGES]
    assert not copy.is_symlink()


@pytest.mark.parametrize("obstacle", ["read-only", "file", "folder", "pipe", "disk full"])
def test_what_cannot_be_kept_is_done_without(
    warm: Path, kept: Path, obstacle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if obstacle == "read-only":  # root could write into it all the same, and must not
        warm.parent.chmod(0o555)
    elif obstacle == "file":
        kept.parent.write_bytes(b"somebody's")
    elif obstacle == "folder":
        (kept / TRAIN_IMAGES).mkdir(parents=True)
    elif obstacle == "pipe":
        kept.mkdir(parents=True)
        os.mkfifo(kept / TRAIN_IMAGES)
    else:

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
    assert same(read(warm), read(warm))
    if obstacle == "read-only":
        assert not kept.parent.exists()
    elif obstacle == "file":
        assert kept.parent.read_bytes() == b"somebody's"
    elif obstacle == "folder":
        assert (kept / TRAIN_IMAGES).is_dir()
    elif obstacle == "pipe":
        assert (kept / TRAIN_IMAGES).is_fifo()
    else:
        assert list(kept.iterdir()) == []


def test_files_themselves_are_left_alone(warm: Path, packed_files: Files) -> None:
    read(warm)
    assert {path.name: path.read_bytes() for path in warm.iterdir()} == packed_files


def test_bundled_sample_stays_as_it_is() -> None:
    load("mnist-sample", Source(offline=True))
    names = {path.name for path in bundled("data/mnist-sample").iterdir()}
    assert names == {*CATALOGUE["mnist-sample"].pins, "README.md"}
