"""Whatever happens to a run, the old state is there after it or the new one, never a third."""

from __future__ import annotations

import errno
import random
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.robustness.conftest import chosen

if TYPE_CHECKING:
    from tests.robustness.conftest import Lab


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*nnctl*")]


@pytest.mark.parametrize(
    ("threads", "augment"), [("1", None), ("2", {"shift": 2, "elastic": {"strength": 2}})]
)
def test_killed_runs_end_as_if_nothing_had_happened(
    lab: Lab, threads: str, augment: dict[str, object] | None
) -> None:
    """Processes die while they start, resume, compute, and write any of their files."""
    rng = random.Random(threads)
    config = lab.config(training={"epochs": 4}, data={"augment": augment})
    train = ["train", "-c", config, "-q", "--threads", threads]
    whole = lab(*train, "--runs-dir", "whole").check(0)
    expected = lab.folder / "whole" / "tiny-001"
    killed = run = 0
    while killed < lab.cycles:
        run += 1
        folder = lab.runs / f"run-{run}"
        # Soon enough that no process comes to the end of the run, but the last one.
        for kill_after in [*(rng.uniform(0.0, whole.seconds / 2) for _ in range(4)), None]:
            if (folder / "config.yaml").exists():
                arguments = ["train", "--resume", str(folder), "-q"]
            else:
                arguments = [*train, "--run-dir", str(folder), "--overwrite"]
            outcome = lab(*arguments, kill_after=kill_after)
            if outcome.status == 0:
                break
            outcome.check(-signal.SIGKILL)
            killed += 1
        outcome.check(0)
        assert lab.run(folder).result == lab.run(expected).result
        assert leftovers(folder) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, None], ids=["disk full", "killed"])
def test_any_call_to_the_system_may_fail(lab: Lab, number: int | None) -> None:
    """Each write, sync, rename, ... of a run fails once, half done; then the run goes on."""
    config = lab.config(training={"epochs": 2, "batch_size": 150})
    train = ["train", "-c", config, "-q"]
    calls = lab(*train, "--runs-dir", "whole", below=lab.folder / "whole").check(0).calls
    expected = lab.run(lab.folder / "whole" / "tiny-001").result
    assert len(calls) > 50
    for at in chosen(calls):
        runs = lab.folder / f"runs-{at}"
        begin = [*train, "--runs-dir", str(runs)]
        outcome = lab(*begin, below=runs, at=at, errno=number)
        outcome.check(*((-signal.SIGKILL,) if number is None else (0, 1)))
        assert len(outcome.calls) >= at, outcome
        name = f"{calls[at - 1]} ({at})"
        if outcome.status == 1:
            assert str(runs) in outcome.err, (name, outcome.err)
            assert leftovers(runs) == [], name
        run = lab.run(runs / "tiny-001")
        begun = (run.path / "config.yaml").exists()
        if outcome.status > 0 and not begun:
            assert not run.path.exists(), name
        if outcome.status:
            again = ["train", "-q", "--resume", str(run.path)] if begun else begin
            run = lab.run(Path(lab(*again).check(0).out.strip()))
        assert run.result == expected, name
        assert leftovers(run.path) == [], name
