"""What can be told of a data set on this machine without fetching it."""

from __future__ import annotations

from dataclasses import dataclass

from nnctl.datasets import Source, describe, locate, read, verify
from nnctl.datasets.catalogue import TEST_LABELS, TRAIN_LABELS


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
    train_per_class: tuple[int, ...] | None
    test_per_class: tuple[int, ...] | None


def info(name: str, source: Source) -> Info:
    """Describe data set `name`; raises `DataError` for a folder whose headers are wrong."""
    sizes = describe(name, source)
    statuses = verify(name, source)
    states = {status.state for status in statuses}
    state = "damaged" if "damaged" in states else states.pop() if len(states) == 1 else "incomplete"
    train_counts, test_counts = (
        _samples_per_class(name, base, source) if state == "ready" else None
        for base in (TRAIN_LABELS, TEST_LABELS)
    )
    rows, columns = sizes.image_shape
    return Info(
        dataset=name,
        path=str(locate(name, source)),
        state=state,
        bytes=sum(status.bytes or 0 for status in statuses),
        train_samples=sizes.train_samples,
        test_samples=sizes.test_samples,
        rows=rows,
        columns=columns,
        classes=sizes.classes or (len(train_counts) if train_counts else None),
        class_names=sizes.class_names,
        train_per_class=train_counts,
        test_per_class=test_counts,
    )


def _samples_per_class(name: str, base: str, source: Source) -> tuple[int, ...]:
    import numpy as np

    labels, _, _ = read(name, base, source)
    return tuple(np.bincount(labels).tolist())
