"""A folder in MNIST's format that somebody names as a data set: four IDX files, gzipped or not.

Nothing is known of it beforehand, so everything is checked. Files that aren't gzipped are copied
into memory up to `LARGEST_COPIED`, and memory-mapped if they are larger: a data set may be larger
than the memory. A mapped file must not be cut in place while nnctl runs, for the system then ends
the process by SIGBUS; to replace one, write another and rename it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nnctl.datasets import idx
from nnctl.datasets.catalogue import FILES, PAIRS
from nnctl.datasets.packing import FileStatus, names, near_misses
from nnctl.errors import DataError, printable
from nnctl.files import as_system_failure, is_file, is_folder

if TYPE_CHECKING:
    from nnctl.datasets.idx import Array

LARGEST_COPIED = 2**26  # MNIST has 47 MB


def read(folder: Path, base: str) -> tuple[Array, Path, str]:
    """Return the values of a file, its path and the SHA-256 of what it holds, unpacked.

    `base` is its name without .gz.
    """
    path, dimensions = _find(folder, base), FILES[base]
    with as_system_failure("reading", path), open(path, "rb") as stream:
        size, packed = os.fstat(stream.fileno()).st_size, idx.is_gzip(stream.read(2))
        stream.seek(0)
        if size > LARGEST_COPIED and not packed:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return idx.map_raw(path, dimensions), path, digest
        if size > idx.LARGEST_UNPACKED:
            raise DataError(f"{printable(path)}: too large to unpack in memory; gunzip it")
        idx.read_shape(path, dimensions)  # before all of it is read
        data: bytes | bytearray = stream.read(size + 1)
    if packed:
        data = idx.unpack(bytes(data), dimensions, path)
    return idx.decode(data, dimensions, path), path, hashlib.sha256(data).hexdigest()


def read_shapes(folder: Path, parts: Collection[str] = tuple(PAIRS)) -> dict[str, tuple[int, ...]]:
    """Return the shape of each file of `parts` from its header, checked against the others'."""
    shapes = {}
    for base in (base for part in parts for base in PAIRS[part]):
        path = _find(folder, base)
        with as_system_failure("reading", path):
            shapes[base] = idx.read_shape(path, FILES[base])
    check_shapes(folder, shapes)
    return shapes


def check_shapes(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `DataError` unless every image has a label and all images have one shape."""
    image_shapes = {}
    for images, labels in PAIRS.values():
        if images not in shapes:
            continue
        image_shapes[images] = shapes[images][1:]
        if shapes[images][0] != shapes[labels][0]:
            raise DataError(
                f"{printable(folder)}: {shapes[images][0]:,} images in {images}, but "
                f"{shapes[labels][0]:,} labels in {labels}"
            )
    if len(set(image_shapes.values())) > 1:
        listed = ", but of ".join(f"{r} x {c} in {name}" for name, (r, c) in image_shapes.items())
        raise DataError(f"{printable(folder)}: images of {listed}")


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
        return FileStatus(folder / base, "missing", f"missing{near_misses(folder, base)}")
    size = path.stat().st_size
    try:
        return FileStatus(path, "ready", "", size, read(folder, base)[2])
    except DataError as error:
        problem = str(error).removeprefix(f"{printable(path)}: ")
        return FileStatus(path, "damaged", problem, size)


def _find(folder: Path, base: str) -> Path:
    for name in reversed(names(base)):  # the one that needs no unpacking first
        if is_file(folder / name):
            return folder / name
    problem, advice = "there is no such folder", ""
    if is_folder(folder):
        problem, advice = "missing, with .gz and without", near_misses(folder, base)
    advice = advice or f"; a data set's folder holds {', '.join(FILES)}"
    raise DataError(f"{printable(folder / base)}: {problem}{advice}")
