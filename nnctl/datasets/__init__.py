"""Data sets by name or folder, as arrays: fetched when missing, checked at every load.

The rest of nnctl asks for a data set here and need not know whether it comes out of the wheel,
a cache, a mirror or somebody's folder.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nnctl.datasets import cache, folder
from nnctl.datasets.catalogue import (
    CATALOGUE,
    PAIRS,
    KnownSet,
    find,
)
from nnctl.datasets.likeness import is_mnist_like
from nnctl.datasets.packing import FileStatus
from nnctl.datasets.source import SILENT, FetchProgress, Limits, Source
from nnctl.errors import DataError, UsageError, printable

if TYPE_CHECKING:
    from nnctl.datasets.idx import Array

__all__ = [
    "CATALOGUE",
    "DataSet",
    "Description",
    "FetchProgress",
    "FileStatus",
    "Limits",
    "Samples",
    "Source",
    "contents",
    "describe",
    "fetch",
    "load",
    "locate",
    "read",
    "verify",
]


PARTS = tuple(PAIRS)


class Samples(NamedTuple):
    """Images (n, pixels) and their labels (n,), both uint8 and read-only."""

    images: Array
    labels: Array


@dataclass(frozen=True)
class DataSet:
    """A loaded data set: a known one's name or a folder's path, its samples, what is known."""

    name: str
    train: Samples  # empty where only the test pair was asked for
    test: Samples
    image_shape: tuple[int, int]  # rows, columns
    class_names: tuple[str, ...] | None
    sha256: Mapping[str, str]  # by file name; a folder's are of what the files hold, unpacked

    @cached_property
    def mnist_like(self) -> bool:
        """True if the images are laid out as MNIST's: 28 x 28, the ink 20 pixels long, centred."""
        samples = self.train if len(self.train.labels) else self.test
        return is_mnist_like(samples.images, self.image_shape)


@dataclass(frozen=True)
class Description:
    """A data set's sizes; `classes` is None for a folder, whose labels only a load reads."""

    image_shape: tuple[int, int]  # rows, columns
    train_samples: int
    test_samples: int
    classes: int | None = None
    class_names: tuple[str, ...] | None = None

    @property
    def inputs(self) -> int:
        """The number of pixels of an image."""
        return math.prod(self.image_shape)


def describe(name: str, *, parts: Collection[str] = PARTS) -> Description:
    """Return the sizes of data set `name` without reading or fetching its samples.

    Of a folder only the `parts` that are asked for, train or test, need be there; a part that is
    not has no samples.

    Raises `UsageError` for an unknown name, `DataError` for a folder whose headers are wrong.
    """
    found = find(name)
    if isinstance(found, KnownSet):
        return Description(
            found.image_shape,
            found.train_samples if "train" in parts else 0,
            found.test_samples if "test" in parts else 0,
            found.classes,
            found.class_names,
        )
    shapes = folder.read_shapes(found, parts)
    counts = {part: shapes[PAIRS[part][0]][0] if part in parts else 0 for part in PARTS}
    _, rows, columns = next(iter(shapes.values()))
    return Description((rows, columns), counts["train"], counts["test"])


def load(
    name: str,
    source: Source,
    *,
    progress: FetchProgress = SILENT,
    classes: int | None = None,
    parts: Collection[str] = PARTS,
) -> DataSet:
    """Return data set `name`, fetched first if it isn't here; labels must lie below `classes`.

    A part, train or test, that is not asked for is left unread and has no samples.

    Raises `DataError` if it is missing, damaged or not downloadable, and then says what to do.
    """
    # A folder's headers must agree before anything large is read.
    sizes = describe(name, parts=parts)
    samples: dict[str, Samples] = {}
    hashes: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for part in (part for part in PARTS if part in parts):
        values = []
        for base in PAIRS[part]:
            file = read(name, base, source, progress)
            hashes[file.name] = file.sha256
            shapes[base] = file.values.shape
            values.append(file.values)
        images, labels = values
        _check_labels(file.path, labels, sizes.classes or classes)
        samples[part] = Samples(images.reshape(len(images), -1), labels)
    folder.check_shapes(locate(name, source), shapes)  # once more: now they have been read
    some = next(iter(samples.values()))
    nothing = Samples(some.images[:0], some.labels[:0])
    return DataSet(
        name=name,
        train=samples.get("train", nothing),
        test=samples.get("test", nothing),
        image_shape=sizes.image_shape,
        class_names=sizes.class_names,
        sha256=hashes,
    )


class File(NamedTuple):
    """A file that has been read, and what identifies its content however it is packed.

    Of a known set that is the name and SHA-256 of the .gz that is pinned; of a folder the name
    without .gz, and the SHA-256 of what the file holds unpacked.
    """

    values: Array
    path: Path
    name: str
    sha256: str


def read(name: str, base: str, source: Source, progress: FetchProgress = SILENT) -> File:
    """Return one file of data set `name`; `base` is its name without .gz.

    A known set's file is fetched if it isn't here.
    """
    found = find(name)
    if not isinstance(found, KnownSet):
        values, path, digest = folder.read(found, base)
        return File(values, path, base, digest)
    pinned = f"{base}.gz"
    values, path = cache.read(found, base, source, progress)
    return File(values, path, pinned, found.pins[pinned].sha256)


def contents(sha256: Mapping[str, str]) -> dict[str, str]:
    """Return what identifies the same data in any packing, from the hashes of a `DataSet`.

    That is the SHA-256 of what each file holds unpacked, by its name without .gz.
    """
    pins = [pin for known in CATALOGUE.values() for pin in known.pins.values()]
    unpacked = {pin.sha256: pin.unpacked_sha256 for pin in pins}
    return {name.removesuffix(".gz"): unpacked.get(h, h) for name, h in sha256.items()}


def locate(name: str, source: Source) -> Path:
    """Return the folder of data set `name`, whether it is there or not."""
    found = find(name)
    return cache.folder_of(found, source) if isinstance(found, KnownSet) else found


def verify(name: str, source: Source) -> tuple[FileStatus, ...]:
    """Return how each file of data set `name` stands; changes and fetches nothing."""
    found = find(name)
    if isinstance(found, KnownSet):
        return cache.check_all(found, source)
    return folder.check_all(found)


def fetch(name: str, source: Source, progress: FetchProgress = SILENT) -> tuple[FileStatus, ...]:
    """Make the known data set `name` complete; return the files that weren't, as found."""
    found = find(name)
    if not isinstance(found, KnownSet):
        raise UsageError(
            f"{printable(name)}: a folder can't be fetched; known are {', '.join(CATALOGUE)}"
        )
    return cache.fetch(found, source, progress)


def _check_labels(path: Path, labels: Array, classes: int | None) -> None:
    if classes is not None and (wrong := labels >= classes).any():
        at = int(wrong.argmax())
        raise DataError(
            f"{printable(path)}: label {labels[at]} at position {at:,}, where {classes} classes "
            f"are numbered from 0 to {classes - 1}\n"
            f"if the labels are right, the network's last layer needs {int(labels.max()) + 1} units"
        )
