"""A checkpoint: one safetensors file that holds a training run's whole state.

Its bytes are a function of config, data, seed, versions, thread count, and weights from elsewhere
alone. Weights lie under the network's names (`0.affine.weight`), the rest under names with a slash
(`optimizer/velocity`). One metadata key, `nnctl`, holds JSON with sorted keys: the config without
name and path, the progress, and a SHA-256 over all of it, for safetensors itself notices no flipped
bit.

A file that comes from outside is held against its own config before an array of it is read.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnctl import __version__
from nnctl.config import Settings, build, check_shapes, settings_from_dict, to_dict
from nnctl.datasets import CATALOGUE
from nnctl.errors import ConfigError, RunError, printable
from nnctl.files import as_system_failure, has_separator, status_of
from nnctl.nn.functions import Array
from nnctl.nn.layers import LAYERS
from nnctl.nn.network import Network
from nnctl.nn.optimizers import OPTIMIZERS
from nnctl.training.engine import build_network
from nnctl.training.events import TIMINGS, EpochFinished
from nnctl.training.threads import MAX_THREADS
from nnctl.training.trainer import Progress, Snapshot, Trainer

FORMAT = 1
FOLDER = "./folder"  # stands for the path of a data set that is a folder

# What is read into memory before a file has shown that it is a checkpoint.
MAX_HEADER = 4 << 20  # bytes; names and shapes of up to 500 layers take some 200 KiB
MAX_LENGTH = 1 << 26  # epochs, and monitored samples

# By safetensors' names, in the order of its list of types.
DTYPES = {"F32": np.float32, "F64": np.float64, "I64": np.int64}


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds."""

    settings: Settings
    snapshot: Snapshot
    inputs: int  # numbers a sample
    data_sha256: Mapping[str, str]
    threads: int
    versions: dict[str, str]
    image_shape: tuple[int, int]  # rows, columns
    class_names: tuple[str, ...] | None  # None: the classes are numbers
    mnist_like: bool  # are the images laid out as MNIST's?
    initial_sha256: str | None = None  # of the file whose weights training began with; None: none

    def network(self) -> Network:
        """Return the network with its weights."""
        network = build_network(self.settings, self.inputs)
        network.load(self.snapshot.parameters)
        return network


def versions() -> dict[str, str]:
    """Return the versions that the bytes of a run depend on."""
    return {"nnctl": __version__, "numpy": np.__version__, "python": platform.python_version()}


def checkpoint_of(trainer: Trainer) -> Checkpoint:
    """Return the checkpoint of a trainer as it stands.

    Raises:
        Diverged: a weight is not finite.

    """
    initial = trainer.initial_weights
    return Checkpoint(
        settings=trainer.settings,
        snapshot=trainer.snapshot(),
        inputs=trainer.engine.network.inputs,
        data_sha256=trainer.data.sha256,
        threads=trainer.engine.threads,
        versions=versions(),
        image_shape=trainer.data.image_shape,
        class_names=trainer.data.class_names,
        mnist_like=trainer.data.mnist_like,
        initial_sha256=None if initial is None else initial.sha256,
    )


def dump(checkpoint: Checkpoint) -> list[bytes | memoryview]:
    """Return the bytes of a checkpoint file in pieces; the arrays are views, not copies."""
    snapshot, progress = checkpoint.snapshot, checkpoint.snapshot.progress
    arrays = {
        **snapshot.parameters,
        **{f"optimizer/{name}": vector for name, vector in snapshot.optimizer.items()},
        "losses/best": snapshot.best_losses,
        "losses/last": snapshot.last_losses,
        **{
            f"history/{name}": np.array([getattr(row, name) for row in progress.history], dtype)
            for name, dtype in _columns(checkpoint.settings).items()
        },
    }
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    config = to_dict(checkpoint.settings)
    del config["name"]
    if has_separator(config["data"]["dataset"]):
        config["data"]["dataset"] = FOLDER
    if config["data"]["augment"] is None:
        del config["data"]["augment"]  # the default: what has none keeps its bytes
    content = {
        "format": FORMAT,
        "config": config,
        "progress": {key: value for key, value in vars(progress).items() if key != "history"},
        "inputs": checkpoint.inputs,
        "data_sha256": dict(checkpoint.data_sha256),
        "threads": checkpoint.threads,
        "versions": checkpoint.versions,
        "image_shape": checkpoint.image_shape,
        "class_names": checkpoint.class_names,
        "mnist_like": checkpoint.mnist_like,
    }
    if checkpoint.initial_sha256 is not None:  # so, too, what began with none keeps its bytes
        content["initial_sha256"] = checkpoint.initial_sha256
    content["sha256"] = _digest(arrays, content)
    return _safetensors(arrays, {"nnctl": _canonical(content)})


def _safetensors(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> list[Any]:
    """Return a safetensors file in pieces, to the byte as the library would write it.

    The library's writer makes a second copy of all arrays, and aborts the process where there is no
    room for it. The format: the header's length in 8 bytes, a JSON header filled with spaces to a
    multiple of 8, the arrays one after the other, those of the widest types first.
    """
    codes = {np.dtype(kind): (rank, code) for rank, (code, kind) in enumerate(DTYPES.items())}
    order = sorted(arrays, key=lambda name: (-codes[arrays[name].dtype][0], name.encode()))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in order:
        array = arrays[name]
        start, end = end, end + array.nbytes
        code = codes[array.dtype][1]
        header[name] = {"dtype": code, "shape": array.shape, "data_offsets": (start, end)}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    little = (
        arrays[name].astype(arrays[name].dtype.newbyteorder("<"), copy=False) for name in order
    )
    return [struct.pack("<Q", len(text)), text, *(a.data.cast("B") for a in little if a.size)]


def load(path: Path) -> Checkpoint:
    """Read a checkpoint file, and check all that it holds.

    Raises:
        RunError: it is missing, not a checkpoint, damaged, or not what its own config describes.

    """
    try:
        with as_system_failure("reading", path):
            return _load(path)
    except _RefusedError as refused:
        raise RunError(
            f"{printable(path)}: the checkpoint can't be used: {refused}\n"
            "restore the file from a copy, or train again"
        ) from None


class _RefusedError(Exception):
    """Why a file is not accepted as a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class _Metadata:
    """The JSON beside the arrays, the progress without its history."""

    config: dict[str, Any]
    progress: Progress
    inputs: int
    data_sha256: dict[str, str]
    threads: int
    versions: dict[str, str]
    # The first checkpoints lack these three; `_complete` fills them in.
    image_shape: tuple[int, int] = (0, 0)
    class_names: tuple[str, ...] | None = None
    mnist_like: bool = False
    initial_sha256: str | None = None


def _canonical(content: dict[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, allow_nan=False)


def _digest(arrays: dict[str, Array], content: dict[str, Any]) -> str:
    """Return the SHA-256 of names, dtypes, shapes, bytes and the metadata but itself."""
    sha = hashlib.sha256(_canonical(content).encode())
    for name in sorted(arrays):
        array = arrays[name]
        sha.update(f"{name} {array.dtype.str} {array.shape}".encode())
        sha.update(array.data.cast("B") if array.size else b"")
    return sha.hexdigest()


def _columns(settings: Settings) -> dict[str, Any]:
    """Return the dtypes of the history's columns: what clocks, epochs and None say is left out."""
    unmonitored = "test_" if settings.data.validation else "validation_"
    names = [field.name for field in fields(EpochFinished) if field.name not in TIMINGS]
    return {
        name: np.int64 if name == "step" else np.float64
        for name in names
        if name != "epoch" and not name.startswith(unmonitored)
    }


def _load(path: Path) -> Checkpoint:
    from safetensors import SafetensorError, safe_open

    here = status_of(path)
    if here is None:
        raise RunError(
            f"{printable(path)}: there is no such checkpoint; `nnctl runs list` says how runs ended"
        )
    if not stat.S_ISREG(here.st_mode):
        raise _RefusedError("it is not a file")
    with path.open("rb") as stream:
        start = stream.read(8)
    size = path.stat().st_size
    header = struct.unpack("<Q", start)[0] if len(start) == 8 else size
    if not 2 <= header <= min(MAX_HEADER, size - 8):
        raise _RefusedError("it is not a safetensors file, or it is cut")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("nnctl")
            content = _parse(text)
            expected = content.pop("sha256", None)
            settings, metadata = _check_metadata(content)
            found = {}
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                found[name] = tuple(part.get_shape()), part.get_dtype()
            _check_arrays(settings, metadata, found)
            arrays = {name: file.get_tensor(name) for name in found}
    except (SafetensorError, TypeError, ValueError) as error:
        raise _RefusedError(printable(error)) from None
    if _digest(arrays, content) != expected:
        raise _RefusedError("its bytes are not those that were written (SHA-256 differs)")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise _RefusedError(f"{name} holds numbers that are not finite")
    return Checkpoint(
        settings=settings,
        snapshot=Snapshot(
            parameters={name: array for name, array in arrays.items() if "/" not in name},
            optimizer=_below("optimizer/", arrays),
            best_losses=arrays["losses/best"],
            last_losses=arrays["losses/last"],
            progress=_with_history(metadata.progress, _below("history/", arrays)),
        ),
        inputs=metadata.inputs,
        data_sha256=metadata.data_sha256,
        threads=metadata.threads,
        versions=metadata.versions,
        image_shape=metadata.image_shape,
        class_names=metadata.class_names,
        mnist_like=metadata.mnist_like,
        initial_sha256=metadata.initial_sha256,
    )


def _parse(text: str | None) -> dict[str, Any]:
    """Return the metadata of a file that nnctl wrote, spelled exactly as nnctl does."""
    try:
        content = json.loads(text or "")
        if _canonical(content) != text:
            raise ValueError
        if content["format"] != FORMAT:
            raise _RefusedError(f"its format is {printable(content['format'])}, not {FORMAT}")
    except (KeyError, TypeError, ValueError, RecursionError):
        raise _RefusedError("it was not written by nnctl, or it is damaged") from None
    return dict(content)


def _check_metadata(content: dict[str, Any]) -> tuple[Settings, _Metadata]:
    """Return the settings, and the rest of the metadata, of the types and in the ranges it has."""
    import msgspec

    try:
        metadata = msgspec.convert(content, _Metadata)
        settings = settings_from_dict({**metadata.config, "name": "checkpoint"})
        classes = check_shapes(settings, metadata.inputs, None)
    except (msgspec.ValidationError, ConfigError) as error:
        reason = str(error).split("\n")[0]
        raise _RefusedError(f"its metadata make no sense: {printable(reason)}") from None
    if metadata.image_shape == (0, 0):
        metadata = _complete(metadata, settings.data.dataset)
    progress = metadata.progress
    counts = progress.epoch, progress.step, progress.position
    if not (
        metadata.inputs > 0
        and min(metadata.image_shape) > 0
        and math.prod(metadata.image_shape) == metadata.inputs
        and len(metadata.class_names or range(classes)) == classes
        and all(map(str.isprintable, metadata.class_names or ()))
        and 0 < metadata.threads <= MAX_THREADS
        and min(counts) >= 0
        and progress.epoch <= min(settings.training.epochs, MAX_LENGTH)
        and isinstance(settings.data.validation, int)  # a count, as the trainer has it
        and settings.data.validation <= MAX_LENGTH
        and not progress.history
    ):
        raise _RefusedError("its metadata make no sense: a number is out of range")
    return settings, metadata


def _complete(metadata: _Metadata, dataset: str) -> _Metadata:
    """Return the metadata of an old checkpoint with what its data set's name says of its images."""
    known = CATALOGUE.get(dataset)
    if known is not None and math.prod(known.image_shape) == metadata.inputs:
        names = known.class_names
        return replace(
            metadata,
            image_shape=known.image_shape,
            class_names=names,
            mnist_like=names is None,
        )
    side = math.isqrt(max(metadata.inputs, 0))
    square = side * side == metadata.inputs
    return replace(metadata, image_shape=(side, side) if square else (1, metadata.inputs))


def _check_arrays(
    settings: Settings, metadata: _Metadata, found: dict[str, tuple[tuple[int, ...], str]]
) -> None:
    """Refuse arrays that are not those of the run, by name, shape or dtype."""
    expected: dict[str, tuple[tuple[int, ...], Any]] = {}
    size, units = 0, metadata.inputs
    for index, choice in enumerate(settings.network):
        layer = build(LAYERS, choice)
        shapes = layer.shapes(units)
        size += sum(map(math.prod, shapes.values()))
        for name, shape in (shapes | layer.statistics(units)).items():
            expected[f"{index}.{choice.kind}.{name}"] = shape, np.float32
        units = layer.output_units(units)
    for name in build(OPTIMIZERS, settings.optimizer).state_names:
        expected[f"optimizer/{name}"] = (size,), np.float32
    monitored = settings.data.held_out(0)  # a count it is, of whatever training set
    if not monitored:  # then the test set is monitored, of whatever size that is
        shape, _ = found.get("losses/last", ((0,), ""))
        monitored = min(shape[0] if len(shape) == 1 else 0, MAX_LENGTH)
    for name in ("best", "last"):
        expected[f"losses/{name}"] = (monitored,), np.float32
    for name, dtype in _columns(settings).items():
        expected[f"history/{name}"] = (metadata.progress.epoch,), dtype

    if missing := sorted(expected.keys() - found.keys()):
        raise _RefusedError(f"array {missing[0]} is missing")
    if extra := sorted(found.keys() - expected.keys()):
        raise _RefusedError(f"array {printable(extra[0])} does not belong to it")
    for name, (shape, dtype) in expected.items():
        other, code = found[name]
        if (shape, dtype) != (other, DTYPES.get(code)):
            kind = np.dtype(DTYPES[code]).name if code in DTYPES else printable(code)
            raise _RefusedError(
                f"{name} is {kind} {other}, but by its config it is {np.dtype(dtype)} {shape}"
            )


def _below(prefix: str, arrays: dict[str, Array]) -> dict[str, Array]:
    """Return the arrays whose names begin with `prefix`, by the rest of their names."""
    return {name[len(prefix) :]: a for name, a in arrays.items() if name.startswith(prefix)}


def _with_history(progress: Progress, columns: dict[str, Array]) -> Progress:
    """Return the progress with its history, whose timings are 0."""
    blank: dict[str, Any] = {field.name: None for field in fields(EpochFinished)}
    blank |= dict.fromkeys(TIMINGS, 0.0)
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    for epoch, row in enumerate(rows, 1):
        values = blank | dict(zip(columns, row, strict=True))
        progress.history.append(EpochFinished(**values | {"epoch": epoch}))
    return progress
