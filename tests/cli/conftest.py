"""Runs that the tests of several commands look at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from nnctl.config import load_settings
from nnctl.datasets import Source, idx, load
from nnctl.datasets.idx import unpack
from nnctl.runs import lock
from nnctl.runs.recorder import train

SMALL = {
    **{"data.train_size": "1000", "data.validation": "300"},
    **{"network.0.affine.units": "50", "optimizer": "momentum", "optimizer.learning_rate": "0.1"},
    **{"training.epochs": "3", "training.batch_size": "100"},
}
RUNS = [
    {"name": "wide"},
    {"name": "narrow", "network.0.affine.units": "4", "optimizer.learning_rate": "0.01"},
    {"name": "unheld", "data.validation": "0", "training.epochs": "2"},
]


@lru_cache(maxsize=8)
def unpacked(packed: bytes, dimensions: tuple[str, ...]) -> bytearray:
    return unpack(packed, dimensions, "mnist-sample")


@pytest.fixture(scope="module", autouse=True)
def _bundled_files_are_unpacked_once() -> Iterator[None]:
    """Each command reads and checks its data; only the gunzip of the same bytes isn't repeated."""

    def once(packed: bytes, dimensions: tuple[str, ...], where: object) -> bytearray:
        bundled = "mnist-sample" in str(where)
        return unpacked(packed, dimensions) if bundled else unpack(packed, dimensions, where)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(idx, "unpack", once)
        yield


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs wide-001, narrow-001 and unheld-001; not to be changed."""
    folder = tmp_path_factory.mktemp("trained") / "runs"
    data = load("mnist-sample", Source())
    for overrides in RUNS:
        settings = load_settings("quickstart", [*(SMALL | overrides).items()])
        with lock.new_run(None, folder, settings.name) as run:
            for _ in train(settings, data, run, threads=1):
                pass
            lock.point_latest(folder, run)
    return folder


@pytest.fixture
def runs_dir(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of these runs, in the current folder's `runs`, as --runs-dir has it by default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    shutil.copytree(trained, tmp_path / "runs", symlinks=True)
    return tmp_path / "runs"
