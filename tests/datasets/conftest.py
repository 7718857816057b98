"""The cache's folder of the tiny data set."""

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "tiny"


@pytest.fixture
def warm(folder: Path, packed_files: dict[str, bytes]) -> Path:
    """The folder with all files in it."""
    folder.mkdir(parents=True)
    for name, data in packed_files.items():
        (folder / name).write_bytes(data)
    return folder
