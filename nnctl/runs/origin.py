"""The weights from elsewhere that a run began with (`train --from`), found again.

A checkpoint knows their SHA-256, the run's manifest where their file lay.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnctl.errors import RunError, SystemFailure, printable
from nnctl.files import sha256_of, status_of
from nnctl.nn.functions import Array
from nnctl.runs.checkpoint import Checkpoint, load
from nnctl.runs.folder import RunFolder, read_json
from nnctl.training.engine import InitialWeights


def read_origin(run: RunFolder, checkpoint: Checkpoint) -> InitialWeights | None:
    """Return the weights that `run` began with; None if its seed gave them.

    Raises:
        RunError: their file is missing or has changed, or the manifest does not name it.

    """
    sha256 = checkpoint.initial_sha256
    if sha256 is None:
        return None
    path = _path(read_json(run.manifest))
    remedy = f"bring the original file back; its SHA-256 is {printable(sha256)}"
    began = f"{printable(run)}: began with the weights of"
    if path is None:
        raise RunError(f"{began} a file that its manifest does not name\n{remedy}")
    here = status_of(path)
    if here is None:
        raise RunError(f"{began} {printable(path)}, which is missing\n{remedy}")
    if not stat.S_ISREG(here.st_mode) or sha256_of(path) != sha256:
        raise RunError(f"{began} {printable(path)}, which has changed since\n{remedy}")
    arrays = load(path).snapshot.parameters
    if _shapes(arrays) != _shapes(checkpoint.snapshot.parameters):
        raise RunError(f"{began} {printable(path)}, but these do not fit its network\n{remedy}")
    return InitialWeights(arrays, str(path), sha256)


def origin_of(run: RunFolder | None, checkpoint: Checkpoint) -> InitialWeights | None:
    """Return the weights that training began with, without arrays if they can't be had any more.

    None: the seed gave them. A checkpoint that lies in no `run` has nobody to say where they are.
    """
    try:
        if run is not None:
            return read_origin(run, checkpoint)
    except (RunError, SystemFailure):
        pass
    sha256 = checkpoint.initial_sha256
    return None if sha256 is None else InitialWeights(None, None, sha256)


def _path(manifest: Mapping[str, Any]) -> Path | None:
    entry = manifest.get("initial_weights")
    path = entry.get("path") if isinstance(entry, dict) else None
    # A byte 0 stands in no path.
    return Path(path) if isinstance(path, str) and path and "\0" not in path else None


def _shapes(arrays: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}
