"""A checkpoint: one safetensors file that holds a training run's whole state.

Its bytes are a function of config, data, seed, versions and thread count alone. Weights lie under
the network's names (`0.affine.weight`), the rest under names with a slash (`optimizer/velocity`).
One metadata key, `nnctl`, holds JSON with sorted keys: the config without name and path, the
progress, and a SHA-256 over all of it, for safetensors itself notices no flipped bit.
"""

from __future__ import annotations

import hashlib
import json
import platform
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnctl import __version__
from nnctl.config import Settings, build, settings_from_dict, to_dict
from nnctl.errors import ConfigError, RunError, printable
from nnctl.nn.functions import Array
from nnctl.nn.network import Network
from nnctl.nn.optimizers import OPTIMIZERS
from nnctl.training.engine import build_network
from nnctl.training.trainer import Progress, Snapshot, Trainer

FORMAT = 1
MAX_HEADER = 16 << 20  # bytes; a header holds names, shapes and the history of the epochs
FOLDER = "./folder"  # stands for the path of a data set that is a folder


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds."""

    settings: Settings
    snapshot: Snapshot
    inputs: int  # numbers a sample
    data_sha256: dict[str, str]
    threads: int
    versions: dict[str, str]

    def network(self) -> Network:
        """Return the network with its weights."""
        network = build_network(self.settings, self.inputs)
        for name, array in network.named_arrays().items():
            array[...] = self.snapshot.parameters[name]
        return network


def versions() -> dict[str, str]:
    """Return the versions that the bytes of a run depend on."""
    return {"nnctl": __version__, "numpy": np.__version__, "python": platform.python_version()}


def checkpoint_of(trainer: Trainer) -> Checkpoint:
    """Return the checkpoint of a trainer as it stands.

    Raises:
        Diverged: a weight is not finite.

    """
    return Checkpoint(
        settings=trainer.settings,
        snapshot=trainer.snapshot(),
        inputs=trainer.engine.network.inputs,
        data_sha256=trainer.data.sha256,
        threads=trainer.engine.threads,
        versions=versions(),
    )


def dump(checkpoint: Checkpoint) -> bytes:
    """Return the bytes of a checkpoint file."""
    from safetensors.numpy import save

    snapshot = checkpoint.snapshot
    arrays = {name: np.ascontiguousarray(a) for name, a in _arrays(snapshot).items()}
    config = to_dict(checkpoint.settings)
    del config["name"]
    if is_folder(config["data"]["dataset"]):
        config["data"]["dataset"] = FOLDER
    content = {
        "format": FORMAT,
        "config": config,
        "progress": snapshot.progress,
        "inputs": checkpoint.inputs,
        "data_sha256": checkpoint.data_sha256,
        "threads": checkpoint.threads,
        "versions": checkpoint.versions,
    }
    content["sha256"] = _digest(arrays, content)
    return save(arrays, metadata={"nnctl": json.dumps(content, sort_keys=True)})


def load(path: Path) -> Checkpoint:
    """Read a checkpoint file, believing nothing of it.

    Raises:
        RunError: it is missing, not a checkpoint, damaged, or not what its own config describes.

    """
    try:
        content, arrays = _read(path)
        return _rebuild(content, arrays)
    except FileNotFoundError:
        raise RunError(f"{printable(path)}: there is no such checkpoint") from None
    except _RefusedError as refused:
        raise RunError(
            f"{printable(path)}: the checkpoint can't be used: {refused}\n"
            "restore the file from a copy, or train again"
        ) from None


class _RefusedError(Exception):
    """Why a file is not accepted as a checkpoint."""


def _arrays(snapshot: Snapshot) -> dict[str, Array]:
    return {
        **snapshot.parameters,
        **{f"optimizer/{name}": vector for name, vector in snapshot.optimizer.items()},
        "losses/best": snapshot.best_losses,
        "losses/last": snapshot.last_losses,
    }


def _digest(arrays: dict[str, Array], content: dict[str, Any]) -> str:
    """Return the SHA-256 of names, dtypes, shapes, bytes and the metadata but itself."""
    sha = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        sha.update(f"{name} {array.dtype.str} {array.shape}".encode())
        sha.update(memoryview(array).cast("B") if array.size else b"")
    return sha.hexdigest()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return metadata and arrays of a safetensors file whose digest holds."""
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as file:
        start = file.read(8)
    size = path.stat().st_size
    header = struct.unpack("<Q", start)[0] if len(start) == 8 else size
    if not 2 <= header <= min(MAX_HEADER, size - 8):
        raise _RefusedError("it is not a safetensors file, or it is cut")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, ValueError) as error:
        raise _RefusedError(printable(error)) from None
    try:
        content = json.loads(metadata["nnctl"])
        expected = content.pop("sha256")
        found = _digest(arrays, content)
    except (KeyError, ValueError, AttributeError, TypeError, RecursionError):
        raise _RefusedError("it was not written by nnctl") from None
    if found != expected:
        raise _RefusedError("its bytes are not those that were written (SHA-256 differs)")
    return content, arrays


def _rebuild(content: dict[str, Any], arrays: dict[str, Array]) -> Checkpoint:
    """Return the checkpoint, held against the network and the optimizer of its own config."""
    if content.get("format") != FORMAT:
        raise _RefusedError(f"its format is {printable(content.get('format'))}, not {FORMAT}")
    try:
        settings = settings_from_dict({**content["config"], "name": "checkpoint"})
        Progress.from_dict(content["progress"])
        network = build_network(settings, content["inputs"])
        snapshot = Snapshot(
            parameters={name: arrays[name] for name in arrays if "/" not in name},
            optimizer={
                name.removeprefix("optimizer/"): arrays[name]
                for name in arrays
                if name.startswith("optimizer/")
            },
            best_losses=arrays["losses/best"],
            last_losses=arrays["losses/last"],
            progress=content["progress"],
        )
        checkpoint = Checkpoint(
            settings=settings,
            snapshot=snapshot,
            **{key: content[key] for key in ("inputs", "data_sha256", "threads", "versions")},
        )
    except (KeyError, TypeError, ValueError, ConfigError, MemoryError) as error:
        raise _RefusedError(f"its metadata make no sense: {printable(error)}") from None
    _compare(network.named_arrays(), snapshot.parameters)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise _RefusedError(f"{printable(name)} holds numbers that are not finite")
    optimizer = build(OPTIMIZERS, settings.optimizer)
    vectors = dict.fromkeys(optimizer.state_names, network.parameters)
    _compare(vectors, snapshot.optimizer)
    return checkpoint


def _compare(expected: dict[str, Array], found: dict[str, Array]) -> None:
    """Refuse arrays that are not those of the network, by name, shape or dtype."""
    if missing := sorted(expected.keys() - found.keys()):
        raise _RefusedError(f"array {missing[0]} is missing")
    if extra := sorted(found.keys() - expected.keys()):
        raise _RefusedError(f"array {printable(extra[0])} does not belong to the network")
    for name, array in expected.items():
        other = found[name]
        if (array.shape, array.dtype) != (other.shape, other.dtype):
            raise _RefusedError(
                f"{name} is {other.dtype} {other.shape}, "
                f"but the config's network has {array.dtype} {array.shape}"
            )


def is_folder(dataset: str) -> bool:
    """Tell a folder's path from a data set's name: a path contains a separator."""
    return "/" in dataset or "\\" in dataset
