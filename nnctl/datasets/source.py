"""Where data may come from and how long it may take; who is told meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nnctl.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """What a server has to keep to before the next mirror gets its turn."""

    window: float = 20.0  # seconds, also for the first byte
    minimum_rate: float = 4096.0  # bytes a second, over each window
    attempts: int = 8  # at one mirror, each going on where the connection broke
    lock_wait: float = 60.0  # seconds for another process that downloads the same files


@dataclass(frozen=True)
class Source:
    """Where data sets lie on this machine, and where missing ones are taken from."""

    data_dir: Path | None = None  # None: ./data if it exists, else the user's cache
    offline: bool = False
    mirrors: tuple[str, ...] = ()  # empty: the known ones
    limits: Limits = field(default_factory=Limits)

    def folder(self) -> Path:
        """Return the folder that holds a folder for each downloaded data set."""
        if self.data_dir is not None:
            return self.data_dir
        if (here := Path("data")).is_dir():
            return here
        import platformdirs

        cache = Path(platformdirs.user_cache_dir("nnctl", appauthor=False))
        if not cache.is_absolute():
            raise UsageError("no home folder to keep data in; name one with --data-dir")
        return cache


class Progress:
    """Is told what happens while data are fetched; this one tells nobody."""

    def warn(self, message: str) -> None:
        """Something went wrong that could be helped: a damaged file, a mirror that failed."""

    def transfer(self, name: str, received: int, total: int) -> None:
        """`received` of the `total` bytes of file `name` are here; begins with 0."""


SILENT = Progress()
