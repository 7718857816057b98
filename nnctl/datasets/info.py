"""What can be said of a data set on this machine without fetching it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnctl.datasets import Source, describe, locate, read, verify
from nnctl.datasets.catalogue import TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from nnctl.files import as_text

if TYPE_CHECKING:
    from nnctl.inspection.diagnosis import Finding

Counts = tuple[int, ...]
LOOKED_AT = 1000  # of a folder's images


@dataclass(frozen=True)
class Info:
    """The fields of `data info --json`; None where only the labels could tell."""

    dataset: str
    path: str
    state: str  # ready, missing, incomplete or damaged
    bytes: int  # of the files that are there
    train_samples: int
    test_samples: int
    rows: int
    columns: int
    classes: int | None
    class_names: tuple[str, ...] | None
    train_per_class: Counts | None
    test_per_class: Counts | None
    findings: tuple[Finding, ...]  # what looks wrong in images and labels of a folder


def info(name: str, source: Source) -> Info:
    """Describe data set `name`; raises `DataError` for a folder whose headers are wrong."""
    sizes = describe(name)
    statuses = verify(name, source)
    states = {status.state for status in statuses}
    state = "damaged" if "damaged" in states else states.pop() if len(states) == 1 else "incomplete"
    classes = sizes.classes
    counts: tuple[Counts, Counts] | tuple[None, None] = (None, None)
    if state == "ready":
        classes, counts = _samples_per_class(name, classes, source)
    rows, columns = sizes.image_shape
    return Info(
        dataset=as_text(name),
        path=as_text(locate(name, source)),
        state=state,
        bytes=sum(status.bytes or 0 for status in statuses),
        train_samples=sizes.train_samples,
        test_samples=sizes.test_samples,
        rows=rows,
        columns=columns,
        classes=classes,
        class_names=sizes.class_names,
        train_per_class=counts[0],
        test_per_class=counts[1],
        findings=tuple(_findings(name, source))
        if state == "ready" and sizes.classes is None
        else (),
    )


def _findings(name: str, source: Source) -> list[Finding]:
    """Return what looks wrong in a sample of a folder's training images."""
    import numpy as np

    from nnctl.inspection.diagnosis import without_consequences
    from nnctl.inspection.images import image_findings, neighbours_agree

    images, labels = (read(name, base, source).values for base in (TRAIN_IMAGES, TRAIN_LABELS))
    some = np.random.default_rng(0).permutation(len(labels))[:LOOKED_AT]
    if not len(some):
        return []
    pixels = images[some].reshape(len(some), -1).astype(np.float32) / 255
    agree = neighbours_agree(pixels, labels[some])
    return without_consequences([*image_findings(pixels, labels[some], agree)])


def _samples_per_class(
    name: str, classes: int | None, source: Source
) -> tuple[int, tuple[Counts, Counts]]:
    """Return the number of classes, counted if it is None, and training and test samples of each.

    A class need not have samples in both.
    """
    import numpy as np

    train, test = (read(name, base, source).values for base in (TRAIN_LABELS, TEST_LABELS))
    classes = classes or 1 + max(int(train.max()), int(test.max()))
    train_counts, test_counts = (np.bincount(a, minlength=classes).tolist() for a in (train, test))
    return classes, (tuple(train_counts), tuple(test_counts))
