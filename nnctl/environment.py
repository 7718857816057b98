"""Environment variables that switch something on."""

from __future__ import annotations

import os

OFF = ("", "0", "f", "false", "n", "no", "off")  # as click reads the variables of flags


def is_on(variable: str) -> bool:
    """Return whether an environment variable is set, and not to a word that means no."""
    return os.environ.get(variable, "").strip().lower() not in OFF
