"""The names that a data set's file goes by, and how one stands that was looked at."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nnctl.datasets.catalogue import FILES
from nnctl.errors import printable
from nnctl.files import TEMPORARY

# What makes another name likely to mean one of ours: its part, and what is in it.
_PARTS = {"train": r"train", "t10k": r"t10k|test"}
_ARCHIVES = (".zip", ".bz2", ".xz", ".zst", ".7z", ".tar", ".tgz")


@dataclass(frozen=True)
class FileStatus:
    """What a check of one file found; `problem` is for people and empty when it is ready."""

    path: Path
    state: Literal["ready", "missing", "damaged"]
    problem: str = ""
    bytes: int | None = None
    sha256: str | None = None


def names(base: str) -> tuple[str, str]:
    """Return the names of file `base`: either may be gzipped or not, its first bytes decide."""
    return f"{base}.gz", base


def near_misses(folder: Path, base: str) -> str:
    """Return the end of a message: which files in `folder` may be meant to be `base`, if any.

    So are MNIST's own names with a dot, EMNIST's and QMNIST's, and other archives.
    """
    part, kind = base.split("-")[:2]  # as in t10k-images-idx3-ubyte
    meant = re.compile(rf"(?=.*({_PARTS[part]}))(?=.*{kind.removesuffix('s')})", re.IGNORECASE)
    ours = {name for each in FILES for name in names(each)}
    found: list[str] = []
    with suppress(OSError):
        found = sorted(
            name
            for name in os.listdir(folder)
            if meant.match(name) and name not in ours and not name.endswith(".bad")
            if not name.startswith(TEMPORARY)
        )
    if not found:
        return ""
    listed = " or ".join(map(printable, found[:3]))
    packed = any(name.lower().endswith(_ARCHIVES) for name in found[:3])
    return f"; is {listed} meant? {'Unpack' if packed else 'Rename'} it to {base}"
