"""What a sweep asks of a training beyond its options, and how the training follows."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# What no user would type: JSON of `Orders`, in the environment.
ORDERS = "_NNCTL_TRIAL"


@dataclass(frozen=True)
class PruningRule:
    """Stop the training if it is worse than `limit` after `epoch`."""

    epoch: int
    objective: str
    maximised: bool
    limit: float  # as `Search.loss` counts: lower is better

    def objective_of(self, row: Mapping[str, Any]) -> float | None:
        """Return the objective of a row of metrics, if it is the epoch that counts."""
        value = row[self.objective] if row["epoch"] == self.epoch else None
        return None if value is None else float(value)

    def prunes(self, row: Mapping[str, Any]) -> bool:
        """Return whether a row of metrics is the one after which the training is stopped."""
        value = self.objective_of(row)
        return value is not None and (-value if self.maximised else value) > self.limit


@dataclass(frozen=True)
class Orders:
    """What a sweep asks of a training beyond its options."""

    parent: int | None = None  # a pipe whose other end is closed when the parent ends
    rule: PruningRule | None = None

    def to_environment(self) -> dict[str, str]:
        """Return the variable that `orders` reads."""
        import json

        return {ORDERS: json.dumps(asdict(self))}


def orders() -> Orders:
    """Return what the sweep asks that this process was started by; nothing, if by a user."""
    if not (text := os.environ.get(ORDERS)):
        return Orders()
    import json

    plain = json.loads(text)
    return Orders(plain["parent"], PruningRule(**plain["rule"]) if plain["rule"] else None)


def end_with_sweep() -> None:
    """End this process as soon as the sweep that started it, if one has, is no more.

    Nothing is lost: a training that is killed goes on from its last checkpoint.
    """
    pipe = orders().parent
    if pipe is None:
        return
    import threading

    def wait() -> None:
        while os.read(pipe, 1):
            pass
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    threading.Thread(target=wait, daemon=True).start()
