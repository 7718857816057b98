"""Run folders: what a training run leaves on disk, and how it is read back.

A run folder may come from a stranger: nothing in it is believed, read without a limit, or written
through a link.
"""

from __future__ import annotations

import errno
import io
import os
import shlex
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from nnctl.config import Settings, load_settings
from nnctl.errors import ConfigError, RunError, printable, without_passwords
from nnctl.files import (
    as_system_failure,
    as_text,
    exists,
    has_separator,
    status_of,
    write_atomically,
)
from nnctl.training.events import TIMINGS, EpochFinished, RunFinished

LATEST = "latest"
MAX_BYTES = 1 << 20  # of a file of a run
MAX_METRICS_BYTES = 64 << 20  # over 100,000 epochs
MAX_STEPS_BYTES = 256 << 20  # over four million steps


@dataclass(frozen=True)
class RunFolder:
    """The paths inside a run folder, and the command that goes on with the run."""

    path: Path

    def __str__(self) -> str:
        """Return the path as it can be given for RUN: never to be taken for a name or an option."""
        text = str(self.path)
        is_path = has_separator(text) or text in (os.curdir, os.pardir)
        return text if is_path else os.path.join(os.curdir, text)

    def resume_command(self, options: Sequence[str] = ()) -> str:
        """Return what to type in a shell to go on with the run, with these options."""
        return shlex.join(["nnctl", "train", "--resume", str(self), *options])

    @property
    def config(self) -> Path:
        """The resolved config; trains again as it is."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON line an epoch."""
        return self.path / "metrics.jsonl"

    @property
    def steps(self) -> Path:
        """One JSON line a step, if the run keeps them: training.log_steps."""
        return self.path / "steps.jsonl"

    @property
    def summary(self) -> Path:
        """The fields of `run_finished`."""
        return self.path / "summary.json"

    @property
    def manifest(self) -> Path:
        """Versions, threads, data, command line, times."""
        return self.path / "manifest.json"

    @property
    def test_predictions(self) -> Path:
        """The prediction for each test image."""
        return self.path / "test_predictions.csv"

    @property
    def validation_predictions(self) -> Path:
        """The prediction for each validation image, and its loss."""
        return self.path / "validation_predictions.csv"

    @property
    def own_files(self) -> tuple[Path, ...]:
        """Everything that nnctl writes into a run, the manifest last; the rest is somebody else's.

        The manifest says whose folder it is.
        """
        return (
            *(self.config, self.metrics, self.steps, self.summary),
            *(self.test_predictions, self.validation_predictions),
            *(self.last, self.best, self.manifest),
        )

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.path / "checkpoints" / "last.safetensors"

    @property
    def best(self) -> Path:
        """The checkpoint of the lowest validation loss."""
        return self.path / "checkpoints" / "best.safetensors"


class StepRow(msgspec.Struct, frozen=True):
    """A line of steps.jsonl; the loss is None where it was not finite."""

    step: int  # from 1
    batch_loss: float | None  # of this batch alone, as minimised


@dataclass(frozen=True)
class Manifest:
    """What others rely on in manifest.json."""

    started: datetime
    threads: int
    data_sha256: dict[str, str]

    def __post_init__(self) -> None:
        # Times without a zone can't be ordered, and the first and last year not shown in any zone.
        if self.started.tzinfo is None or not 1 < self.started.year < 9999:
            raise ValueError("started is no time that a run can have")


# Reading.


def read_regular(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Return the content of a file of a run: no pipe, no device, nothing without end.

    Raises:
        RunError: it is missing, not a file, or too large.

    """
    with as_system_failure("reading", path):
        try:
            # Opening a pipe would wait for somebody who writes.
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            raise RunError(f"{printable(path)}: missing; the run has not come so far") from None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise RunError(f"{printable(path)}: not a file")
            if status.st_size > limit:
                raise RunError(f"{printable(path)}: {status.st_size:,} bytes, which is too large")
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(limit)
        finally:
            os.close(descriptor)


def read_config(run: RunFolder) -> Settings:
    """Return the settings of a run.

    Raises:
        RunError: config.yaml is missing, or can't be used.

    """
    found = status_of(run.config)
    if found is None or not stat.S_ISREG(found.st_mode):
        raise RunError(
            f"{printable(run.config)}: missing; the run had not begun when it was ended\n"
            "train it again, with --overwrite if it is to be in the same folder"
        )
    try:
        return load_settings(str(run.config))
    except ConfigError as error:
        raise RunError(f"{printable(run.path)}: its config can't be used\n{error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of a run.

    Raises:
        RunError: the file is missing or not a JSON object.

    """
    try:
        return msgspec.json.decode(read_regular(path), type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        raise RunError(f"{printable(path)}: damaged, not a JSON object") from None


def read_manifest(run: RunFolder) -> Manifest:
    """Return what others rely on in a run's manifest.

    Raises:
        RunError: the file is missing or damaged.

    """
    manifest: Manifest = convert(read_json(run.manifest), Manifest, run.manifest)
    return manifest


def read_summary(run: RunFolder) -> RunFinished | None:
    """Return the last word of a run; None if it is under way, or was killed.

    Raises:
        RunError: the file is damaged.

    """
    if not exists(run.summary):
        return None
    summary: RunFinished = convert(read_json(run.summary), RunFinished, run.summary)
    found = summary.overfitting
    rests_on = (found.since_epoch, *vars(found.evidence).values())
    if found.verdict == "overfitting" and None in rests_on:
        raise RunError(f"{printable(run.summary)}: damaged, the verdict rests on nothing")
    return summary


def convert(content: Any, kind: Any, path: Path) -> Any:
    """Return JSON content as `kind`; what has another shape is damaged."""
    try:
        return msgspec.convert(content, kind)
    except (ValueError, OverflowError) as error:
        raise RunError(f"{printable(path)}: damaged: {printable(error)}") from None


def read_metrics(run: RunFolder) -> list[dict[str, Any]]:
    """Return the rows of a run's metrics; a torn last line is left out.

    `epoch` and `step` are whole numbers, the other fields of `EpochFinished` numbers or None.

    Raises:
        RunError: another line is damaged.

    """
    rows = []
    for number, row in enumerate(_rows(run), 1):
        if row is None:
            raise RunError(f"{printable(run.metrics)}:{number}: damaged line")
        rows.append(row)
    return rows


def _rows(run: RunFolder) -> Iterator[dict[str, Any] | None]:
    """Yield the metrics' lines as rows, None for a damaged one."""
    types: dict[str, Any] = dict.fromkeys(EpochFinished.__annotations__, float | None)
    types |= {"epoch": int, "step": int}
    decoder = msgspec.json.Decoder(msgspec.defstruct("Row", list(types.items())))
    if not exists(run.metrics):
        return
    for line in io.BytesIO(read_regular(run.metrics, MAX_METRICS_BYTES)):
        if not line.endswith(b"\n"):
            return  # torn
        try:
            yield msgspec.structs.asdict(decoder.decode(line))
        except (msgspec.DecodeError, RecursionError):
            yield None


# Writing.


def to_json(content: Any) -> bytes:
    """Return readable JSON; numbers that are not finite become null."""
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def json_line(content: Any) -> bytes:
    """Return one line of JSON; numbers that are not finite become null."""
    return msgspec.json.encode(content) + b"\n"


def now() -> str:
    """Return the time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def new_manifest(**facts: Any) -> dict[str, Any]:
    """Return the manifest of a run that starts now."""
    import numpy as np

    # NumPy leaves out what it does not know: the version, where it was built without BLAS.
    blas = np.show_config(mode="dicts")["Build Dependencies"].get("blas", {})
    words = blas.get("name"), blas.get("version"), os.environ.get("OPENBLAS_CORETYPE")
    return {
        "blas": " ".join(filter(None, words)),
        **facts,
        "command": as_text(shlex.join(map(without_passwords, sys.argv))),
        "started": now(),
        "ended": None,
        "seconds": 0.0,
        "unfinished_epoch_seconds": 0.0,
    }


def append_row(run: RunFolder, row: EpochFinished) -> None:
    """Append one epoch to the metrics, and return when it is on the disk.

    Raises:
        SystemFailure: it could not be written; the file is as it was.

    """
    _append(run.metrics, json_line(row))


def append_steps(run: RunFolder, first: int, losses: Sequence[float]) -> None:
    """Append the batch losses of the steps from `first` on, and return when they are on the disk.

    Raises:
        SystemFailure: they could not be written; the file is as it was.

    """
    rows = (StepRow(step=step, batch_loss=loss) for step, loss in enumerate(losses, first))
    _append(run.steps, b"".join(map(json_line, rows)))


def _append(path: Path, data: bytes) -> None:
    """Append whole lines in one go."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    with (
        as_system_failure("writing", path),
        open(os.open(path, flags, 0o666), "ab", buffering=0) as file,
    ):
        before = file.seek(0, os.SEEK_END)
        try:
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
        except BaseException:
            with suppress(OSError):
                file.truncate(before)
            raise


def read_steps(run: RunFolder) -> list[StepRow]:
    """Return the batch losses that a run has kept, of the steps from 1 on.

    A torn last line is left out.

    Raises:
        RunError: the run keeps none, or a line is damaged.

    """
    if not exists(run.steps):
        raise RunError(
            f"{printable(run.path)}: keeps no batch losses\n"
            "train with: --set training.log_steps=true"
        )
    return _step_rows(run, _step_lines(run))


def repair_steps(run: RunFolder, steps: int) -> None:
    """Cut off the batch losses past the first `steps`, which come again.

    Raises:
        RunError: there are fewer, or one of them is damaged.

    """
    lines = _step_lines(run)[:steps]
    if len(lines) < steps:
        raise RunError(
            f"{printable(run.steps)}: ends at step {len(lines)}, but the checkpoint is of step "
            f"{steps}\nbring the original file back"
        )
    _step_rows(run, lines)
    wanted = b"".join(lines)
    if read_regular(run.steps, MAX_STEPS_BYTES) != wanted:
        write_atomically(run.steps, wanted)


def _step_rows(run: RunFolder, lines: Sequence[bytes]) -> list[StepRow]:
    """Return lines as rows; they are those of the steps from 1 on."""
    rows = []
    decode = msgspec.json.Decoder(StepRow).decode
    for number, line in enumerate(lines, 1):
        try:
            row = decode(line)
        except (msgspec.DecodeError, RecursionError):
            row = None
        if row is None or row.step != number:
            raise RunError(f"{printable(run.steps)}:{number}: damaged line")
        rows.append(row)
    return rows


def _step_lines(run: RunFolder) -> list[bytes]:
    """Return the whole lines of the batch losses."""
    lines = read_regular(run.steps, MAX_STEPS_BYTES).splitlines(keepends=True)
    return [line for line in lines if line.endswith(b"\n")]


def repair_metrics(run: RunFolder, history: list[EpochFinished]) -> None:
    """Make the metrics hold the epochs of `history` and no others.

    A row that is there keeps its timings; torn lines and rows past the checkpoint go.
    """
    rows = {row["epoch"]: row for row in _rows(run) if row is not None}
    lines = []
    for epoch in history:
        known = {key: value for key, value in asdict(epoch).items() if key not in TIMINGS}
        row = rows.get(epoch.epoch, {})
        lines.append(known | {key: row.get(key) for key in TIMINGS})
    wanted = b"".join(map(json_line, lines))
    if run.metrics.is_symlink() or not exists(run.metrics):
        same = False
    else:
        same = read_regular(run.metrics, MAX_METRICS_BYTES) == wanted
    if not same:
        write_atomically(run.metrics, wanted)
