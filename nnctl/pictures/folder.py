"""A person's pictures as a data set: a folder with one subfolder a class, `digits/7/*.png`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from nnctl.datasets import DataSet, Samples
from nnctl.errors import DataError, printable
from nnctl.files import as_system_failure
from nnctl.pictures.preparation import prepare, resized
from nnctl.pictures.reading import read_file

TOLD = 5  # files of those that can't be used are named


def holds_pictures(folder: Path) -> bool:
    """Return whether `folder` has subfolders and no files but hidden ones."""
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError:  # who reads it will say why
        return False
    return bool(entries) and all(entry.is_dir() for entry in entries)


def load_pictures(
    name: str,
    image_shape: tuple[int, int],
    classes: int,
    class_names: tuple[str, ...] | None,
    *,
    mnist_like: bool,
) -> DataSet:
    """Return the pictures below folder `name` as a data set's test images; it has no others.

    A subfolder is named by the number of its class, 0 to `classes` - 1, or by its name. The
    pictures come in the order of their paths, each prepared as `nnctl predict` does.

    Raises:
        DataError: a subfolder is no class, or a picture can't be used.

    """
    folder = Path(name)
    images, labels, hashes, unread = [], [], {}, []
    with as_system_failure("reading", folder):
        files = sorted(path for path in folder.glob("*/*") if not path.name.startswith("."))
    numbers = {title: n for n, title in enumerate(class_names or ())}
    numbers |= {str(n): n for n in range(classes)}
    for path in files:
        if path.parent.name not in numbers:
            raise DataError(
                f"{printable(path.parent)}: no class of the network; "
                f"its classes are {', '.join(map(printable, numbers))}"
            )
        try:
            grey = read_file(str(path)).grey
            stages = prepare(grey) if mnist_like else resized(grey, image_shape, inverted=False)
            if not stages.digits:
                raise DataError("nothing stands out from the page")
        except DataError as error:
            unread.append(f"{printable(path)}: {error}")
            continue
        images.append(stages.digits[0].image.ravel())
        labels.append(numbers[path.parent.name])
        hashes[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    if unread:
        more = [f"and {len(unread) - TOLD:,} more"] if len(unread) > TOLD else []
        raise DataError("\n".join([*unread[:TOLD], *more, "remove or replace what can't be read"]))
    if not images:
        raise DataError(f"{printable(folder)}: its subfolders hold no files")
    samples = Samples(np.stack(images), np.array(labels, np.uint8))
    nothing = Samples(samples.images[:0], samples.labels[:0])
    return DataSet(name, nothing, samples, image_shape, class_names, hashes)
