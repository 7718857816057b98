"""A folder in MNIST's format that somebody names as a data set: four IDX files, gzipped or not.

Nothing is known of it beforehand, so everything is checked. Files that aren't gzipped are
memory-mapped: a data set may be larger than the memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nnctl.datasets import idx
from nnctl.datasets.cache import FileStatus
from nnctl.datasets.catalogue import FILES, TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from nnctl.errors import DataError, printable
from nnctl.files import told

if TYPE_CHECKING:
    from nnctl.datasets.idx import Array


def read(folder: Path, base: str) -> tuple[Array, Path, str]:
    """Return the values of a file, its path and its SHA-256; `base` is its name without .gz."""
    path = _find(folder, base)
    with told("reading", path):
        if path.suffix != ".gz":
            values = idx.map_raw(path, FILES[base])
            with open(path, "rb") as stream:
                return values, path, hashlib.file_digest(stream, "sha256").hexdigest()
        if path.stat().st_size > idx.LARGEST_UNPACKED:
            raise DataError(f"{printable(path)}: too large to unpack in memory; gunzip it")
        packed = path.read_bytes()
    return idx.unpack(packed, FILES[base], path), path, hashlib.sha256(packed).hexdigest()


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each of the four files from its header, checked against the others'."""
    shapes = {}
    for base, dimensions in FILES.items():
        path = _find(folder, base)
        with told("reading", path):
            shapes[base] = idx.read_shape(path, dimensions)
    check_shapes(folder, shapes)
    return shapes


def check_shapes(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `DataError` unless every image has a label and all images have one shape."""
    for images, labels in ((TRAIN_IMAGES, TRAIN_LABELS), (TEST_IMAGES, TEST_LABELS)):
        if shapes[images][0] != shapes[labels][0]:
            raise DataError(
                f"{printable(folder)}: {shapes[images][0]:,} images in {images}, but "
                f"{shapes[labels][0]:,} labels in {labels}"
            )
    train, test = shapes[TRAIN_IMAGES][1:], shapes[TEST_IMAGES][1:]
    if train != test:
        raise DataError(
            f"{printable(folder)}: images of {train[0]} x {train[1]} in {TRAIN_IMAGES}, but of "
            f"{test[0]} x {test[1]} in {TEST_IMAGES}"
        )


def check_all(folder: Path) -> tuple[FileStatus, ...]:
    """Return how each file stands: whether it is there, whole, and fits the others."""
    statuses = [_check(folder, base) for base in FILES]
    if all(status.state == "ready" for status in statuses):
        try:
            read_shapes(folder)
        except DataError as error:
            statuses[0] = replace(statuses[0], state="damaged", problem=str(error))
    return tuple(statuses)


def _check(folder: Path, base: str) -> FileStatus:
    try:
        path = _find(folder, base)
    except DataError:
        return FileStatus(folder / base, "missing", "missing")
    size = path.stat().st_size
    try:
        return FileStatus(path, "ready", "", size, read(folder, base)[2])
    except DataError as error:
        problem = str(error).removeprefix(f"{printable(path)}: ")
        return FileStatus(path, "damaged", problem, size)


def _find(folder: Path, base: str) -> Path:
    for path in (folder / base, folder / f"{base}.gz"):
        if path.is_file():
            return path
    problem = "missing, with .gz and without" if folder.is_dir() else "there is no such folder"
    raise DataError(
        f"{printable(folder / base)}: {problem}; a data set's folder holds {', '.join(FILES)}"
    )
