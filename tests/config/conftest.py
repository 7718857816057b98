"""A way to write a config and load it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nnctl.config import Settings, load_settings
from nnctl.errors import ConfigError

Load = Callable[..., Settings]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Return a function that loads text as `a.yaml` of the current folder."""
    monkeypatch.chdir(tmp_path)

    def load(text: str | bytes, *overrides: tuple[str, str]) -> Settings:
        Path("a.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
        return load_settings("a.yaml", overrides)

    return load


@pytest.fixture
def refusal(load: Load) -> Callable[..., str]:
    """Return a function that loads what can't be loaded and returns the message."""

    def refusal(text: str | bytes, *overrides: tuple[str, str]) -> str:
        with pytest.raises(ConfigError) as caught:
            load(text, *overrides)
        return str(caught.value)

    return refusal
