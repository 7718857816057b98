"""Where data may come from and how long it may take; who hears of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from nnctl.errors import UsageError, printable
from nnctl.files import is_folder

# With a user and a password at most: in them, @ and / are written %40 and %2F.
_ADDRESS = re.compile(r"https?://([^\s/?#@]*@)?[^\s/?#@]+(/[^\s?#@]*)?", re.IGNORECASE)


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

    def __post_init__(self) -> None:
        """Check the mirrors: raises `UsageError` for one that is no http address."""
        for mirror in self.mirrors:
            if not _ADDRESS.fullmatch(mirror):
                shown = printable(re.sub("//.*@", "//***@", mirror, flags=re.DOTALL))
                advice = "; write @ as %40 and / as %2F in a password" if "@" in mirror else ""
                raise UsageError(
                    f"mirror {shown}: not an http:// or https:// address of a folder{advice}"
                )

    def folder(self) -> Path:
        """Return the folder that holds a folder for each downloaded data set."""
        if self.data_dir is not None:
            return self.data_dir
        if is_folder(here := Path("data")):
            return here
        import platformdirs

        cache = Path(platformdirs.user_cache_dir("nnctl", appauthor=False))
        if not cache.is_absolute():
            raise UsageError("no home folder to keep data in; name one with --data-dir")
        return cache


class FetchProgress:
    """Hears what happens while data are fetched; this one says nothing."""

    def warn(self, message: str) -> None:
        """Something went wrong that could be helped: a damaged file, a mirror that failed."""

    def transfer(self, name: str, received: int, total: int) -> None:
        """`received` of the `total` bytes of file `name` are here; begins with 0."""


SILENT = FetchProgress()
