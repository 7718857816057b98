"""Data sets by name or folder, as arrays: fetched when missing, checked at every load.

The rest of nnctl asks for a data set here and need not know whether it comes out of the wheel,
a cache, a mirror or somebody's folder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nnctl.datasets import cache, folder, idx, unpacked
from nnctl.datasets.cache import FileStatus
from nnctl.datasets.catalogue import (
    CATALOGUE,
    FILES,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    KnownSet,
    find,
)
from nnctl.datasets.likeness import is_mnist_like
from nnctl.datasets.source import SILENT, Limits, Progress, Source
from nnctl.errors import DataError, UsageError, printable

if TYPE_CHECKING:
    from nnctl.datasets.idx import Array

__all__ = [
    "CATALOGUE",
    "DataSet",
    "Description",
    "FileStatus",
    "Limits",
    "Progress",
    "Samples",
    "Source",
    "describe",
    "fetch",
    "load",
    "locate",
    "read",
    "verify",
]


class Samples(NamedTuple):
    """Images (n, pixels) and their labels (n,), both uint8 and read-only."""

    images: Array
    labels: Array


@dataclass(frozen=True)
class DataSet:
    """A loaded data set: a known one's name or a folder's path, its samples, what is known."""

    name: str
    train: Samples
    test: Samples
    image_shape: tuple[int, int]  # rows, columns
    class_names: tuple[str, ...] | None
    sha256: Mapping[str, str]  # by file name

    @cached_property
    def mnist_like(self) -> bool:
        """True if the images are laid out as MNIST's: 28 x 28, the ink 20 pixels long, centred."""
        return is_mnist_like(self.train.images, self.image_shape)


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


def describe(name: str) -> Description:
    """Return the sizes of data set `name` without reading or fetching its samples.

    Raises `UsageError` for an unknown name, `DataError` for a folder whose headers are wrong.
    """
    found = find(name)
    if isinstance(found, KnownSet):
        return Description(
            found.image_shape,
            found.train_samples,
            found.test_samples,
            found.classes,
            found.class_names,
        )
    shapes = folder.read_shapes(found)
    train_samples, rows, columns = shapes[TRAIN_IMAGES]
    return Description((rows, columns), train_samples, shapes[TEST_IMAGES][0])


def load(
    name: str, source: Source, *, progress: Progress = SILENT, classes: int | None = None
) -> DataSet:
    """Return data set `name`, fetched first if it isn't here; labels must lie below `classes`.

    Raises `DataError` if it is missing, damaged or not downloadable, and then says what to do.
    """
    sizes = describe(name)  # a folder's headers must agree before anything large is read
    values: dict[str, Array] = {}
    hashes: dict[str, str] = {}
    for base in FILES:
        values[base], path, digest = read(name, base, source, progress)
        hashes[path.name] = digest
        if base in (TRAIN_LABELS, TEST_LABELS):
            _check_labels(path, values[base], sizes.classes or classes)
    folder.check_shapes(locate(name, source), {base: a.shape for base, a in values.items()})
    return DataSet(
        name=name,
        train=_samples(values[TRAIN_IMAGES], values[TRAIN_LABELS]),
        test=_samples(values[TEST_IMAGES], values[TEST_LABELS]),
        image_shape=sizes.image_shape,
        class_names=sizes.class_names,
        sha256=hashes,
    )


def read(
    name: str, base: str, source: Source, progress: Progress = SILENT
) -> tuple[Array, Path, str]:
    """Return the values, path and SHA-256 of one file of data set `name`.

    `base` is its name without .gz; a known set's file is fetched if it isn't here.
    """
    found = find(name)
    if not isinstance(found, KnownSet):
        return folder.read(found, base)
    path = cache.folder_of(found, source) / f"{base}.gz"
    packed = cache.read(found, path.name, source, progress)
    unpack = unpacked.read if found.mirrors else idx.unpack  # what is bundled is left as it is
    return unpack(packed, FILES[base], path), path, found.pins[path.name].sha256


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


def fetch(name: str, source: Source, progress: Progress = SILENT) -> tuple[FileStatus, ...]:
    """Make the known data set `name` complete; return the files that weren't, as found."""
    found = find(name)
    if not isinstance(found, KnownSet):
        raise UsageError(
            f"{printable(name)}: a folder can't be fetched; known are {', '.join(CATALOGUE)}"
        )
    return cache.fetch(found, source, progress)


def _samples(images: Array, labels: Array) -> Samples:
    return Samples(images.reshape(len(images), -1), labels)


def _check_labels(path: Path, labels: Array, classes: int | None) -> None:
    if classes is not None and (wrong := labels >= classes).any():
        at = int(wrong.argmax())
        raise DataError(
            f"{printable(path)}: label {labels[at]} at position {at:,}, where {classes} classes "
            f"are numbered from 0 to {classes - 1}\n"
            f"if the labels are right, the network's last layer needs {int(labels.max()) + 1} units"
        )
