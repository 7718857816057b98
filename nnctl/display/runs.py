"""Runs as a person reads them: a list, one in full, several side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from nnctl.config import to_yaml
from nnctl.display.charts import SideBySide
from nnctl.display.columns import (
    Column,
    Shrinking,
    print_table,
    runs_by_value,
    turned,
    turned_width,
    width_of,
)
from nnctl.display.curves import accuracy_chart, loss_chart
from nnctl.display.output import console, is_on_terminal
from nnctl.display.summary import duration, summary_view
from nnctl.display.tables import NOTHING
from nnctl.errors import counted, printable
from nnctl.runs.compare import (
    Difference,
    Flattery,
    GroupDifference,
    RunComparison,
    SeedGroup,
)
from nnctl.runs.folder import RunFolder
from nnctl.runs.run import StoredRun
from nnctl.runs.verify import Verification

SMALLEST_FLATTERY = 0.00005  # what two digits of a percentage can show

VALIDATION_SET = {"data.dataset", "data.validation", "data.split_seed"}  # what decides it

# Field, heading, and how long it stays when the terminal is narrow: low numbers go last.
LIST = (
    ("run", "run", 0),
    ("started", "started", 6),
    ("status", "status", 3),
    ("units", "units", 4),
    ("optimizer", "optimizer", 7),
    ("learning_rate", "rate", 5),
    ("batch_size", "batch", 9),
    ("seed", "seed", 3),
    ("epochs", "epochs", 8),
    ("validation_accuracy", "validation", 1),
    ("test_accuracy", "test", 2),
    ("verdict", "overfitting", 10),
    ("seconds", "time", 11),
)
RESULTS = (
    ("validation_accuracy", "validation", 0),
    ("test_accuracy", "test", 1),
    ("validation_loss", "val. loss", 3),
    ("best_epoch", "best epoch", 4),
    ("verdict", "overfitting", 5),
    ("seconds", "time", 2),
)


def print_list(overviews: Sequence[Mapping[str, Any]]) -> None:
    """Print a line for each run; there is at least one."""
    print_table(Shrinking(_columns(overviews, LIST)))


def print_comparison(found: RunComparison) -> None:
    """Print runs side by side: the settings that differ, results, who is better."""
    out = console()
    names = Column("run", [printable(record.name) for record in found.records], is_text=True)
    differing, results = setting_columns(found), result_columns(found)
    needed = [names, *differing, *(column for column in results if not column.order)]
    if width_of(needed) <= out.width or not is_on_terminal():
        print_table(Shrinking([names, *differing, *results]))
    elif turned_width([names, *differing, *results]) <= out.width:
        out.print(turned([names, *differing, *results]))
    else:
        print_table(Shrinking([names, *results]))
        for column in differing:
            out.print(f"\n{column.heading}", style="bold")
            out.print(runs_by_value(names, column))
    for sentence in conclusions(found):
        out.print(f"\n{sentence}")


def setting_columns(found: RunComparison) -> list[Column]:
    """Return the settings that differ, a cell for each run."""
    settings = found.settings
    return [
        Column(heading, [_setting(value) for value in settings[path]])
        for path, heading in zip(settings, short_names(settings), strict=True)
    ]


def result_columns(found: RunComparison) -> list[Column]:
    """Return what came of the runs, a cell for each."""
    return _columns([record.overview() for record in found.records], RESULTS)


def conclusions(found: RunComparison) -> list[str]:
    """Return what can be said of the runs' differences, a sentence or two each."""
    said = []
    if not found.settings:
        said.append("All settings are the same.")
    if not VALIDATION_SET.isdisjoint(found.settings):
        said.append("Their validation sets differ: validation figures compare them but roughly.")
    said += map(_group_in_words, found.groups)
    if found.group_difference is not None:
        said.append(_group_difference_in_words(found.group_difference))
    elif found.group_reason:
        said.append(f"No test of the two groups: {found.group_reason}.")
    elif found.reason:
        said.append(f"No test of the best two: {printable(found.reason)}.")
    elif found.difference is not None:
        said.append(_in_words(found.difference))
    if found.flattery is not None and found.flattery.accuracy >= SMALLEST_FLATTERY:
        said.append(_flattery_in_words(found.flattery))
    return said


def print_run(record: StoredRun) -> None:
    """Print one run in full: its config, curves, the verdict, the final figures."""
    out = console()
    overview, rows = record.overview(), msgspec.to_builtins(record.history)
    started = _shown("started", overview["started"])
    out.print(f"{printable(record.name)}: {overview['status']}, started {started}\n")
    for line in to_yaml(record.settings).splitlines():
        out.print(printable(line), soft_wrap=True)
    out.print()
    if record.summary is not None:
        out.print(summary_view(msgspec.to_builtins(record.summary), rows, record.monitored))
    elif rows:
        out.print(SideBySide([loss_chart(rows), accuracy_chart(rows)]))
        out.print(f"\n{counted(len(rows), 'epoch')} so far, {duration(overview['seconds'])}")
    else:
        out.print("no epoch is finished yet")
    out.print(printable(record.run), soft_wrap=True)


def print_verification(run: RunFolder, found: Verification) -> None:
    """Print the hashes of the checkpoints that ought to be equal, and what differs."""
    out = console()
    verdict = "exact, nothing differs" if found.exact else "NOT exact"
    out.print(f"{printable(run)}: {verdict}", soft_wrap=True)
    rows = {
        "in one go": found.uninterrupted,
        f"interrupted after step {found.step:,} of {found.steps:,}": found.interrupted,
        "the run itself": found.recorded or "not compared: unfinished, other versions or threads",
    }
    for what, digest in rows.items():
        out.print(f"  {what}: {digest}", soft_wrap=True)
    for difference in found.differences:
        out.print(f"  differs: {difference}", soft_wrap=True)


def _columns(
    overviews: Sequence[Mapping[str, Any]], fields: Sequence[tuple[str, str, int]]
) -> list[Column]:
    return [
        Column(
            heading,
            [_shown(field, overview[field]) for overview in overviews],
            order,
            is_text=any(isinstance(overview[field], str) for overview in overviews),
        )
        for field, heading, order in fields
    ]


def short_names(paths: Mapping[str, Any]) -> list[str]:
    """Return each dotted path's last word, or as many as tell it from other headings."""
    taken = {"kind", *(heading for _, heading, _ in RESULTS)}
    names = []
    for path in paths:
        words = path.split(".")
        for count in range(1, len(words) + 1):
            name = ".".join(words[-count:])
            rivals = [other for other in paths if f".{other}".endswith(f".{name}")]
            if len(rivals) == 1 and name not in taken:
                break
        names.append(name)
    return names


def _setting(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return NOTHING if value is None else printable(value)


def _shown(field: str, value: Any) -> str:
    """Return a field of an overview as people read it."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return NOTHING
    if field.endswith("accuracy"):
        return f"{value:.2%}"
    if field.endswith("loss"):
        return f"{value:.4f}"
    if field == "learning_rate":
        return f"{value:g}"
    if field == "seconds":
        return duration(value)
    if field == "started":
        return datetime.fromisoformat(value).astimezone().strftime("%Y-%m-%d %H:%M")
    return printable(value)


def _in_words(difference: Difference) -> str:
    first, second = printable(difference.first), printable(difference.second)
    if difference.identical:
        return f"{first} and {second} are the same to the byte."
    images = f"the {difference.samples:,} {difference.split} images"
    if not difference.only_first + difference.only_second:
        return f"{first} and {second} get the same ones of {images} right."
    what = (
        "differ by more than chance" if difference.beyond_chance else "may differ by chance alone"
    )
    return (
        f"{first} and {second} {what} on {images}: "
        f"{difference.only_first:,} only {first} got right, {difference.only_second:,} only "
        f"{second} (McNemar's test, p = {difference.p_value:.2g})."
    )


def _group_in_words(group: SeedGroup) -> str:
    low, high = (_shown(group.field, end) for end in group.interval)
    mean, deviation = (
        _shown(group.field, number) for number in (group.mean, group.standard_deviation)
    )
    return (
        f"{printable(_names(group.runs))} differ in the seed alone: {_worded(group.field)} {mean}, "
        f"standard deviation {deviation}; the mean lies in {low} to {high} (n = {group.n}, 95 % t "
        "interval)."
    )


def _group_difference_in_words(difference: GroupDifference) -> str:
    low, high = (_signed(difference.field, end) for end in difference.interval)
    what = "differ by more than chance" if difference.beyond_chance else "may be equally good"
    return (
        f"{printable(_names(difference.first))} and {printable(_names(difference.second))} {what}: "
        f"{_worded(difference.field)} {_signed(difference.field, difference.mean)} for the first, "
        f"{low} to {high} with 95 % confidence ({len(difference.seeds)} seeds in pairs, t test, "
        f"p = {difference.p_value:.2g})."
    )


def _flattery_in_words(found: Flattery) -> str:
    return (
        f"These {found.runs} runs have read the same {found.samples:,} test images: if they were "
        f"equally good, the best of them would still look {100 * found.accuracy:.2f} points better "
        "than it is. Choose by validation figures."
    )


def _names(runs: Sequence[str]) -> str:
    """Return the names of a group's runs in short: the first and the last."""
    return runs[0] if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"


def _worded(field: str) -> str:
    return field.replace("_", " ")


def _signed(field: str, value: float) -> str:
    """Return a difference as people read it: accuracies in points."""
    if field.endswith("accuracy"):
        return f"{100 * value:+.2f} points"
    return f"{value:+.4g}"
