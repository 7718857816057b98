"""Run folders: what a training run leaves on disk, who may write it, and how it is read back."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nnctl.errors import RunError, SystemFailure, UsageError, printable
from nnctl.files import locked, write_atomically

NAME = re.compile(r"[A-Za-z0-9._-]+")
LATEST = "latest"


@dataclass(frozen=True)
class RunFolder:
    """The paths inside a run folder."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved config; trains again as it is."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON line an epoch."""
        return self.path / "metrics.jsonl"

    @property
    def summary(self) -> Path:
        """The fields of `run_finished`."""
        return self.path / "summary.json"

    @property
    def manifest(self) -> Path:
        """Versions, threads, data, command line, times."""
        return self.path / "manifest.json"

    @property
    def predictions(self) -> Path:
        """The prediction for each test image."""
        return self.path / "test_predictions.csv"

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.path / "checkpoints" / "last.safetensors"

    @property
    def best(self) -> Path:
        """The checkpoint of the lowest validation loss."""
        return self.path / "checkpoints" / "best.safetensors"


# Finding and reading.


def find_run(name: str, runs_dir: Path) -> RunFolder:
    """Return the folder of a run that is given by path, or by name under `runs_dir`.

    Raises:
        RunError: there is no such run.

    """
    for path in (runs_dir / name, Path(name)):
        if (path / "manifest.json").is_file():
            return RunFolder(path.resolve() if path.name == LATEST else path)
    known = [run.path.name for run in list_runs(runs_dir)]
    hint = f"runs there: {', '.join(map(printable, known[-5:]))}" if known else "train one first"
    raise RunError(f"no run {printable(name)!r} in {printable(runs_dir)}, and no such path\n{hint}")


def list_runs(runs_dir: Path) -> list[RunFolder]:
    """Return the runs in `runs_dir`, by name; `latest` is not one of them."""
    if not runs_dir.is_dir():
        return []
    return [
        RunFolder(path)
        for path in sorted(runs_dir.iterdir())
        if path.name != LATEST and (path / "manifest.json").is_file()
    ]


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of a run.

    Raises:
        RunError: the file is missing or not a JSON object.

    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RunError(f"{printable(path)}: missing; the run has not come so far") from None
    except (ValueError, RecursionError):
        raise RunError(f"{printable(path)}: damaged, not JSON") from None
    except IsADirectoryError:
        raise RunError(f"{printable(path)}: a folder, not a file") from None
    if not isinstance(content, dict):
        raise RunError(f"{printable(path)}: damaged, not a JSON object")
    return content


def read_metrics(run: RunFolder) -> list[dict[str, Any]]:
    """Return the rows of a run's metrics; a torn last line is left out.

    Raises:
        RunError: another line is damaged.

    """
    if not run.metrics.exists():
        return []
    lines = run.metrics.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines[:-1], 1):  # what follows the last newline is torn
        try:
            row = json.loads(line)
            rows.append({**row, "epoch": int(row["epoch"])})
        except (ValueError, TypeError, KeyError, RecursionError):
            raise RunError(f"{printable(run.metrics)}:{number}: damaged line") from None
    return rows


# Claiming and owning.


def check_name(name: str) -> None:
    """Refuse a run name that could not be a plain folder name.

    Raises:
        UsageError: the name has other characters than letters, digits, `.`, `_` and `-`.

    """
    if not NAME.fullmatch(name) or name.strip(".") == "":
        raise UsageError(f"name {printable(name)!r}: use letters, digits, '.', '_' and '-'")


def _claim_numbered(runs_dir: Path, name: str) -> RunFolder:
    """Make and return `runs_dir/NAME-001` or the next number that is free.

    `mkdir` decides, so that runs that start at the same moment never share a folder.
    """
    runs_dir.mkdir(parents=True, exist_ok=True)
    taken = re.compile(re.escape(name) + r"-(\d+)")
    numbers = (taken.fullmatch(entry.name) for entry in os.scandir(runs_dir))
    number = max((int(match[1]) for match in numbers if match), default=0)
    while True:
        number += 1
        path = runs_dir / f"{name}-{number:03d}"
        with suppress(FileExistsError):
            path.mkdir()
            return RunFolder(path)


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse a folder that a new run may not write to.

    Raises:
        RunError: it holds something, and it is not a run that `overwrite` gives up.

    """
    if not path.exists():
        return
    if not path.is_dir():
        raise RunError(f"{printable(path)}: exists, and is not a folder")
    if not any(path.iterdir()):
        return
    if not (path / "manifest.json").is_file():
        raise RunError(f"{printable(path)}: holds other files; choose another --run-dir")
    if not overwrite:
        raise RunError(
            f"{printable(path)}: holds a run already\n"
            "continue it with --resume, replace it with --overwrite, or choose another --run-dir"
        )


@contextmanager
def new_run(
    run_dir: Path | None, runs_dir: Path, name: str, *, overwrite: bool = False
) -> Iterator[RunFolder]:
    """Own a folder for a new run: `run_dir`, else the next numbered one in `runs_dir`.

    Raises:
        RunError: the folder holds something already, or is in use.

    """
    if run_dir is None:
        run = _claim_numbered(runs_dir, name)
    else:
        run_dir.mkdir(parents=True, exist_ok=True)
        run = RunFolder(run_dir)
    with owned(run):
        check_free(run.path, overwrite)
        for path in (run.config, run.metrics, run.summary, run.predictions, run.manifest):
            path.unlink(missing_ok=True)
        shutil.rmtree(run.last.parent, ignore_errors=True)
        run.last.parent.mkdir()
        yield run


@contextmanager
def owned(run: RunFolder) -> Iterator[None]:
    """Be the only process that writes to a run.

    The operating system drops the lock when its owner ends, however it ends.

    Raises:
        RunError: another process trains this run.

    """
    with locked(run.path) as mine:
        if not mine:
            raise RunError(f"{printable(run.path)}: in use by another process; wait for it to end")
        yield


def point_latest(runs_dir: Path, run: RunFolder) -> None:
    """Make `runs_dir/latest` a relative link to the run, in one step."""
    if run.path.parent.resolve() != runs_dir.resolve():
        return
    temporary = runs_dir / f".latest.{os.getpid()}"
    with suppress(OSError):  # some file systems have no links; the name is a convenience
        temporary.symlink_to(run.path.name)
        temporary.replace(runs_dir / LATEST)


# Writing.


def to_json(content: Any) -> bytes:
    """Return readable JSON; numbers that are not finite become null."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def json_line(content: Any) -> bytes:
    """Return one line of JSON; numbers that are not finite become null."""
    import msgspec

    return msgspec.json.encode(content) + b"\n"


def now() -> str:
    """Return the time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def new_manifest(**facts: Any) -> dict[str, Any]:
    """Return the manifest of a run that starts now."""
    import numpy as np

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]  # type: ignore[call-overload]
    return {
        "blas": f"{blas['name']} {blas['version']}",
        **facts,
        "command": shlex.join(sys.argv),
        "started": now(),
        "ended": None,
        "seconds": 0.0,
        "unfinished_epoch_seconds": 0.0,
    }


def append_row(run: RunFolder, row: Any) -> None:
    """Append one epoch to the metrics, and return when it is on the disk.

    Raises:
        SystemFailure: it could not be written; the file is as it was.

    """
    try:
        with run.metrics.open("ab") as file:
            before = file.tell()
            try:
                file.write(json_line(row))
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    os.truncate(file.fileno(), before)
                raise
    except OSError as error:
        raise SystemFailure(
            f"{printable(run.metrics)}: {error.strerror}; free some room, then --resume"
        ) from None


def repair_metrics(run: RunFolder, history: list[Any]) -> None:
    """Make the metrics hold the epochs of `history` and no others.

    A row that is there keeps its timings; torn lines and rows past the checkpoint go.
    """
    from nnctl.training.trainer import TIMINGS

    try:
        rows = {row["epoch"]: row for row in read_metrics(run)}
    except RunError:
        rows = {}
    lines = []
    for epoch in history:
        known = {key: value for key, value in asdict(epoch).items() if key not in TIMINGS}
        row = rows.get(epoch.epoch, {})
        lines.append({**known, **{key: row.get(key) for key in TIMINGS}})
    wanted = b"".join(map(json_line, lines))
    if not run.metrics.exists() or run.metrics.read_bytes() != wanted:
        write_atomically(run.metrics, wanted)
