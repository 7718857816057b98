"""Sweeps as a person reads them: the table as it runs, and what was found."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from nnctl.display.sweeps import print_end, shown, trial_line
from nnctl.display.trials import LiveView, end_view
from nnctl.sweeps.folder import SweepFolder
from nnctl.sweeps.outcome import SweepFinished
from nnctl.sweeps.plan import Trial
from nnctl.sweeps.run import TrialFinished, TrialStarted
from nnctl.sweeps.settings import Search, load_search

SWEEP = """
config: quickstart
method: random
trials: 4
parameters:
  optimizer.learning_rate: {min: 1e-3, max: 1, log: true}
  optimizer: [{kind: momentum}, {kind: adam}]
"""
RATES = [0.1, 0.5, 0.01]


@pytest.fixture
def search(tmp_path: Path) -> Search:
    (tmp_path / "rates.yaml").write_text(SWEEP)
    return load_search(str(tmp_path / "rates.yaml"), {}, {})


@pytest.fixture
def trials() -> dict[int, Trial]:
    found = {
        k: Trial(
            trial=k,
            parameters={
                "optimizer.learning_rate": RATES[k],
                "optimizer": {"kind": "adam" if k else "momentum"},
            },
            state="complete",
            objective=0.2 + k / 100,
            network=5000 - 1000 * k,
            seconds=1.5,
        )
        for k in range(3)
    }
    parameters = {"optimizer.learning_rate": 0.9, "optimizer": {"kind": "adam"}}
    found[3] = Trial(trial=3, parameters=parameters, state="failed", error="of \x1b itself\nmore")
    return found


def finished(**changes: Any) -> SweepFinished:
    fields: dict[str, Any] = {
        **{"best": 1, "best_parameters": {}, "best_objective": 0.21, "best_run_dirs": []},
        **{"tied": [0], "trials": 4, "complete": 3, "pruned": 0, "diverged": 0, "failed": 1},
        **{"test_accuracy": 0.95, "test_accuracy_interval": (0.94, 0.96)},
        **{"seconds": 4.5, "sweep_dir": "sweeps/rates-001"},
    }
    return SweepFinished(**fields | changes)


def drawn(content: Any, width: int = 80, encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=stream, width=width, markup=False, emoji=False, highlight=False).print(content)
    stream.seek(0)
    return stream.read()


def test_end_names_the_winner_and_by_what_right(search: Search, trials: dict[int, Trial]) -> None:
    text = " ".join(drawn(end_view(search, trials, finished())).split())
    assert "4 trials: 3 complete, 1 failed" in text
    assert "Trial 0 has the lowest validation_loss, 0.2000; a paired t test" in text
    assert "can't tell trial 1 from it. Of these, trial 1 has the smallest network" in text
    assert "Its test accuracy: 95.00% (95 %: 94.00% to 96.00%)." in text
    assert r"trial 3 failed: of \x1b itself" in text
    alone = drawn(end_view(search, trials, finished(best=0, tied=[])))
    assert "all others are worse by more than chance" in " ".join(alone.split())


def test_end_ranks_the_trials_and_shows_each_parameters_part(
    search: Search, trials: dict[int, Trial]
) -> None:
    lines = drawn(end_view(search, trials, finished())).splitlines()
    table = [line.split() for line in lines[2:6]]
    assert table[0][:3] == ["trial", "validation_loss", "learning_rate"]
    assert [row[:2] for row in table[1:]] == [["0", "0.2000"], ["1", "0.2100"], ["2", "0.2200"]]
    assert ("tied" in table[1], "winner" in table[2]) == (True, True)
    assert any("validation_loss by learning_rate" in line for line in lines)
    assert any(line.startswith("learning_rate ") for line in lines)  # the axis, not cut
    choices = next(i for i, line in enumerate(lines) if line.startswith("optimizer "))
    assert lines[choices + 1].split() == ["momentum", "1", "0.2000", "0.2000"]
    assert lines[choices + 2].split() == ["adam", "2", "0.2100", "0.2150"]


def test_table_into_a_pipe_is_whole_and_a_terminal_is_told_what_is_left_out(
    search: Search,
    trials: dict[int, Trial],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def end() -> tuple[str, str]:
        sweep = SweepFolder(tmp_path)
        print_end(sweep, search, trials, finished(), as_json=False, quiet=False)
        return capsys.readouterr()

    monkeypatch.setenv("COLUMNS", "50")
    out, errors = end()
    headings = next(line for line in out.splitlines() if line.startswith("trial ")).split()
    assert headings[2:] == ["learning_rate", "optimizer", "network", "time"]
    assert errors == ""
    monkeypatch.setattr("nnctl.display.columns.is_on_terminal", lambda: True)
    _, errors = end()
    assert "left out for want of room: optimizer, network, time" in errors


def test_end_of_a_sweep_without_a_complete_trial_says_why(
    search: Search, trials: dict[int, Trial]
) -> None:
    failed = {3: trials[3]}
    text = drawn(end_view(search, failed, finished(best=None, tied=[], complete=0, trials=1)))
    assert "1 trial: 0 complete, 1 failed" in text
    assert "winner" not in text


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_views_keep_to_the_terminal(
    search: Search, trials: dict[int, Trial], tmp_path: Path, width: int
) -> None:
    live = LiveView(SweepFolder(tmp_path), search, {})
    for trial in trials.values():
        live.take(TrialStarted(trial))
        live.take(TrialFinished(trial))
    for view in (live, end_view(search, trials, finished())):
        assert all(len(line) <= width for line in drawn(view, width).splitlines())
        assert drawn(view, width, "ascii").isascii()


def test_live_view_knows_what_is_left(
    search: Search, trials: dict[int, Trial], tmp_path: Path
) -> None:
    live = LiveView(SweepFolder(tmp_path), search, {0: trials[0]})
    under_way = Trial(trial=1, parameters=trials[1].parameters)
    live.take(TrialStarted(under_way))
    text = drawn(live)
    assert "trial 1/4" in text
    assert "under way" in text
    assert not live.is_over
    for trial in trials.values():
        live.take(TrialFinished(trial))
    assert live.is_over
    assert "under way" not in drawn(live)


def test_line_of_a_trial_has_its_values_and_its_error_on_one_line(
    search: Search, trials: dict[int, Trial]
) -> None:
    assert trial_line(search, trials[0], 1) == (
        "1/4  trial 0  complete  validation_loss 0.2  optimizer.learning_rate=0.1  "
        "optimizer=momentum"
    )
    assert trial_line(search, trials[3], 4).endswith(r"of \x1b itself")


def test_values_are_shown_as_they_are_said() -> None:
    assert shown(0.0123456) == "0.01235"
    assert shown({"kind": "adam"}) == "adam"
    assert shown({"kind": "adam", "beta1": 0.5}) == "{kind: adam, beta1: 0.5}"
