"""Finished and unfinished runs side by side: their settings, their figures, which one is better."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnctl.config import leaves, to_dict
from nnctl.datasets import contents
from nnctl.datasets.catalogue import PAIRS
from nnctl.errors import UsageError, did_you_mean, printable
from nnctl.files import exists, sha256_of
from nnctl.runs.predictions import read_predictions
from nnctl.runs.run import StoredRun
from nnctl.runs.statistics import SIGNIFICANCE, estimate_mean, mcnemar, selection_bias

# Settings.


def differing(records: Sequence[StoredRun]) -> dict[str, list[Any]]:
    """Return the settings that differ, by path, each with its value in every run.

    Names don't count, threads do. Where the kinds of layers differ, the network is one setting.
    """
    plain = [to_dict(record.settings) for record in records]
    alike = len({tuple(layer.kind for layer in record.settings.network) for record in records}) < 2
    tables = []
    for config in plain:
        del config["name"]
        if not alike:
            config["network"] = ", ".join(_layer(layer) for layer in config["network"])
        tables.append(dict(leaves(config)))
    paths = dict.fromkeys(path for table in tables for path in table)
    columns = {path: [table.get(path) for table in tables] for path in paths}
    columns["threads"] = [record.manifest.threads for record in records]  # they change bytes
    found = {p: values for p, values in columns.items() if any(v != values[0] for v in values)}
    return _merged(found)


def _merged(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return `columns` with those that say the same of several layers made one.

    Its path names them all, as in `network.0+2.affine.initializer`.
    """
    merged: dict[tuple[str, str], tuple[list[str], list[Any]]] = {}
    for path, values in columns.items():
        match = re.fullmatch(r"network\.(\d+)\.(.+)", path)
        layer, rest = match.groups() if match else ("", path)
        layers, _ = merged.setdefault((rest, repr(values)), ([], values))
        layers.append(layer)
    return {
        f"network.{'+'.join(layers)}.{rest}" if layers[0] else rest: values
        for (rest, _), (layers, values) in merged.items()
    }


def _layer(layer: dict[str, dict[str, Any]]) -> str:
    """Return a layer in short, such as `affine 50`."""
    ((kind, options),) = layer.items()
    shown = [str(options[key]) for key in ("units", "rate", "slope") if key in options]
    return " ".join([kind, *shown])


# Which is better.


def rank_runs(records: Sequence[StoredRun], by: str | None = None) -> list[StoredRun]:
    """Return the runs, best first: by validation accuracy, or by another field or setting.

    Accuracies count from the highest down, everything else from the lowest up; runs without a
    value come last.

    Raises:
        UsageError: there is no such field.

    """
    by = by or "validation_accuracy"
    tables = [
        dict(leaves(to_dict(record.settings))) | record.overview() for record in records
    ]  # the overview last: `seed` is the same in both
    if tables and not any(by in table for table in tables):
        known = list(dict.fromkeys(key for table in tables for key in table))
        hint = did_you_mean(by, known, f"there are {', '.join(known)}")
        raise UsageError(f"--by {printable(by)}: no such field; {hint}")
    values = [table.get(by) for table in tables]
    numeric = all(isinstance(value, int | float | None) for value in values)
    sign = -1 if by.endswith("accuracy") else 1

    def key(index: int) -> tuple[bool, Any]:
        value = values[index]
        if value is None:
            return True, 0
        return False, sign * value if numeric else str(value)

    return [records[index] for index in sorted(range(len(records)), key=key)]


@dataclass(frozen=True)
class Difference:
    """Two runs on the same images, by McNemar's test."""

    first: str  # their names
    second: str
    split: str  # validation or test
    samples: int
    only_first: int  # images that only this one got right
    only_second: int
    p_value: float  # how often equally good networks would differ as much
    identical: bool  # their last checkpoints have the same bytes

    @property
    def beyond_chance(self) -> bool:
        """True if chance makes such a difference less often than once in twenty."""
        return self.p_value < SIGNIFICANCE


def compare_pair(
    first: StoredRun, second: StoredRun, split: str = "validation"
) -> Difference | str:
    """Return how two runs differ on the images of a split, or why that can't be said.

    Raises:
        RunError: predictions are damaged.

    """
    for record in (first, second):
        if not _has_predictions(record, split):
            return f"{record.name} keeps no {split} predictions"
    ours, theirs = (read_predictions(record.run, split) for record in (first, second))
    if _hashes(first, split) != _hashes(second, split) or not ours.same_images(theirs):
        return f"{first.name} and {second.name} have different {split} images"
    only_first = int((ours.right & ~theirs.right).sum())
    only_second = int((theirs.right & ~ours.right).sum())
    return Difference(
        first=first.name,
        second=second.name,
        split=split,
        samples=len(ours.labels),
        only_first=only_first,
        only_second=only_second,
        p_value=mcnemar(only_first, only_second),
        identical=sha256_of(first.run.last) == sha256_of(second.run.last),
    )


def _has_predictions(record: StoredRun, split: str) -> bool:
    run = record.run
    return exists(run.validation_predictions if split == "validation" else run.test_predictions)


def _hashes(record: StoredRun, split: str) -> dict[str, str]:
    """Return what identifies the files that a split is taken from."""
    files = PAIRS["test" if split == "test" else "train"]
    found = contents(record.manifest.data_sha256)
    return {name: sha for name, sha in found.items() if name.removesuffix(".gz") in files}


# Several seeds, several runs.


@dataclass(frozen=True)
class SeedGroup:
    """Runs that differ in nothing but the seed, and what a field of their results comes to."""

    runs: tuple[str, ...]  # names, by seed
    seeds: tuple[int, ...]
    field: str
    n: int
    mean: float
    standard_deviation: float
    interval: tuple[float, float]  # of the mean, by Student's t at 95 %
    values: tuple[float, ...]


@dataclass(frozen=True)
class GroupDifference:
    """Two groups of runs, paired by seed: the mean of first - second."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    field: str
    seeds: tuple[int, ...]  # that both have
    mean: float
    interval: tuple[float, float]  # by the paired t test, at 95 %
    p_value: float

    @property
    def beyond_chance(self) -> bool:
        """True if chance makes such a difference less often than once in twenty."""
        return self.p_value < SIGNIFICANCE


@dataclass(frozen=True)
class Flattery:
    """Runs that have read the same test images: what choosing the best of them adds by chance."""

    runs: int
    samples: int
    accuracy: float  # by which the best looks better than it is


def group_by_seed(records: Sequence[StoredRun], field: str) -> list[SeedGroup]:
    """Return the groups of two or more runs that differ in the seed alone, as they come.

    Runs without a number in `field` are left out; of two with one seed the first counts.
    """
    groups: dict[str, dict[int, tuple[str, float]]] = {}
    for record in records:
        config = to_dict(record.settings)
        del config["name"], config["seed"]
        key = json.dumps([config, record.manifest.threads, record.manifest.data_sha256])
        value = record.overview().get(field)
        if isinstance(value, int | float) and math.isfinite(value):
            group = groups.setdefault(key, {})
            group.setdefault(record.settings.seed, (record.name, float(value)))
    found = []
    for group in groups.values():
        if len(group) < 2:
            continue
        seeds = tuple(sorted(group))
        names, values = zip(*(group[seed] for seed in seeds), strict=True)
        estimate = estimate_mean(np.array(values))
        deviation = float(np.std(values, ddof=1))
        found.append(
            SeedGroup(
                runs=names,
                seeds=seeds,
                field=field,
                n=len(seeds),
                mean=estimate.mean,
                standard_deviation=deviation,
                interval=estimate.interval,
                values=values,
            )
        )
    return found


def compare_groups(first: SeedGroup, second: SeedGroup) -> GroupDifference | str:
    """Return how two groups differ, paired by seed, or why that can't be said."""
    seeds = tuple(sorted({*first.seeds} & {*second.seeds}))
    if len(seeds) < 2:
        return "the two groups have fewer than two seeds in common"
    ours, theirs = (dict(zip(group.seeds, group.values, strict=True)) for group in (first, second))
    estimate = estimate_mean(np.array([ours[seed] - theirs[seed] for seed in seeds]))
    return GroupDifference(
        first=first.runs,
        second=second.runs,
        field=first.field,
        seeds=seeds,
        mean=estimate.mean,
        interval=estimate.interval,
        p_value=estimate.p_value,
    )


def flattery(records: Sequence[StoredRun]) -> Flattery | None:
    """Return what choosing the best by the test set would add; None if fewer than two have read it.

    Only runs on the same test images as the first count.

    Raises:
        RunError: predictions are damaged.

    """
    tested = [record for record in records if _has_predictions(record, "test")]
    tables = [
        read_predictions(record.run, "test")
        for record in tested
        if _hashes(record, "test") == _hashes(tested[0], "test")
    ]
    if len(tables) < 2 or not all(table.same_images(tables[0]) for table in tables):
        return None
    right = np.stack([table.right for table in tables])
    return Flattery(len(right), right.shape[1], selection_bias(right))


@dataclass(frozen=True)
class RunComparison:
    """Runs side by side, best first, and what can be said of their differences."""

    records: list[StoredRun]
    settings: dict[str, list[Any]]  # those that differ, by path: a value for each run
    difference: Difference | None  # of the best two
    reason: str | None  # why there is no difference
    groups: list[SeedGroup]
    group_difference: GroupDifference | None  # of the groups, where there are two
    group_reason: str | None  # why there is no group difference
    flattery: Flattery | None


def compare_runs(
    records: Sequence[StoredRun], by: str | None = None, split: str = "validation"
) -> RunComparison:
    """Put runs side by side, best first by a field; test the best two on the images of `split`.

    Raises:
        UsageError: there is no such field.
        RunError: predictions are damaged.

    """
    best_first = rank_runs(records, by)
    two = compare_pair(best_first[0], best_first[1], split) if len(records) > 1 else None
    groups = group_by_seed(best_first, by or f"{split}_accuracy")
    of_groups = compare_groups(*groups) if len(groups) == 2 else None
    return RunComparison(
        records=best_first,
        settings=differing(best_first),
        difference=None if isinstance(two, str) else two,
        reason=two if isinstance(two, str) else None,
        groups=groups,
        group_difference=None if isinstance(of_groups, str) else of_groups,
        group_reason=of_groups if isinstance(of_groups, str) else None,
        flattery=flattery(best_first),
    )
