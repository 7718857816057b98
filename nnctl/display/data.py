"""What a person sees of data sets: where they lie, whether they are whole, what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.filesize import decimal
from rich.table import Table

from nnctl.datasets import CATALOGUE, FileStatus
from nnctl.datasets.info import Info
from nnctl.display.digits import Gallery
from nnctl.display.evaluation import class_label
from nnctl.display.output import console, print_json
from nnctl.display.trace import Findings
from nnctl.errors import printable
from nnctl.files import as_text
from nnctl.nn.functions import Array


def print_fetched(name: str, folder: Path, fetched: int) -> None:
    """Print where data set `name` lies now, of which `fetched` files are new."""
    what = f"{fetched} files fetched" if fetched != 1 else "1 file fetched"
    _print_line(f"{name}: ready in {printable(folder)} ({what if fetched else 'nothing to do'})")


def print_statuses(name: str, statuses: Sequence[FileStatus], *, as_json: bool) -> None:
    """Print how each file of data set `name` stands, a line each."""
    for status in statuses:
        if as_json:
            print_json(
                {
                    "dataset": as_text(name),
                    "path": as_text(status.path),
                    "state": status.state,
                    "problem": status.problem or None,
                    "bytes": status.bytes,
                    "sha256": status.sha256,
                }
            )
        else:
            damage = f": {status.problem}" if status.state == "damaged" else ""
            problem = damage or status.problem.removeprefix("missing")
            _print_line(f"{status.state:<8} {printable(status.path)}{problem}")


def print_info(info: Info, *, classes: bool) -> None:
    """Print what is known of a data set; `classes`: and of each of its classes."""
    fetchable = info.state != "ready" and info.dataset in CATALOGUE
    remedy = f"; `nnctl data fetch {info.dataset}` completes it" if fetchable else ""
    rows = {
        "state": f"{info.state}{remedy}",
        "folder": printable(info.path),
        "size": decimal(info.bytes),
        "training": f"{info.train_samples:,} images",
        "test": f"{info.test_samples:,} images",
        "pixels": f"{info.rows} x {info.columns}",
        "classes": str(info.classes or "unknown"),
    }
    _print_line(printable(info.dataset))
    for key, value in rows.items():
        _print_line(f"  {key:<8}  {value}")
    if not classes:
        return
    if info.findings:
        console().print(Findings(info.findings))
        _print_line("")
    counts = {"training": info.train_per_class, "test": info.test_per_class}
    shown = {title: column for title, column in counts.items() if column is not None}
    if not shown and info.class_names is None:
        return
    table = Table(box=None, padding=(0, 0, 0, 2))
    table.add_column("class", justify="right")
    if info.class_names is not None:
        table.add_column("name")
    for title in shown:
        table.add_column(title, justify="right")
    for label in range(info.classes or 0):
        names = [] if info.class_names is None else [info.class_names[label]]
        table.add_row(str(label), *names, *(f"{column[label]:,}" for column in shown.values()))
    console().print(table)


def print_images(
    indices: Array, rows: Array, labels: Array, class_names: Sequence[str] | None
) -> None:
    """Print images, each plain and then as each epoch sees it, side by side.

    `rows` are (images, 1 + epochs, rows, columns); if all are plain, as many stand side by side
    as the width takes.
    """
    captions = [
        f"image {index}: {class_label(label, class_names)}"
        for index, label in zip(indices.tolist(), labels.tolist(), strict=True)
    ]
    if rows.shape[1] == 1:
        console().print(Gallery(rows[:, 0], captions))
        return
    epochs = [f"epoch {epoch}" for epoch in range(1, rows.shape[1])]
    for row, caption in zip(rows, captions, strict=True):
        console().print(Gallery(row, [caption, *epochs]))


def _print_line(line: str) -> None:
    """Print `line` as one line, however narrow the terminal is."""
    console().print(line, soft_wrap=True)
