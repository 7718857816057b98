"""Sweeps as a shell runs them: what they leave, and what kills, signals and damage do to them.

NNCTL_TEST_CYCLES=200 kills a Bayesian sweep 50 times, the default of 20 four times.
"""

from __future__ import annotations

import json
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.sweeps.conftest import Bench, Done, results, wait_for

BAYES: dict[str, Any] = {
    "method": "bayes",
    "trials": 12,
    "parallel": 4,
    "parameters": {
        "optimizer.learning_rate": {"min": 1e-3, "max": 1, "log": True},
        "network.0.affine.units": {"min": 4, "max": 16, "step": 4},
        "optimizer": [{"kind": "momentum"}, {"kind": "adam"}],
    },
}
GRID: dict[str, Any] = {
    "parameters": {
        "network.0.affine.units": [2, 8],
        "optimizer.learning_rate": [0.01, 0.1],
    }
}


def trial(sweep: Path, number: int) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((sweep / f"trials/{number:04}/trial.json").read_text())
    return content


# What a sweep does.


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, Done]:
    """A grid sweep that has come to its end; only to be looked at."""
    bench = Bench.make(tmp_path_factory.mktemp("grid"))
    return bench, bench("sweep", bench.sweep_file(**GRID), "--json")


def test_grid_trains_every_point_once_as_an_ordinary_run(grid: tuple[Bench, Done]) -> None:
    bench, done = grid
    start, *finished, end = done.events
    assert (start["event"], start["trials"], start["method"]) == ("sweep_started", 4, "grid")
    points = [
        tuple(trial(bench.sweep, k)["parameters"][key] for key in GRID["parameters"])
        for k in range(4)
    ]
    assert points == [(2, 0.01), (2, 0.1), (8, 0.01), (8, 0.1)]
    assert sorted(event["trial"] for event in finished) == list(range(4))
    assert {event["state"] for event in finished} == {"complete"}
    expected = ("sweep_finished", 4, "sweeps/tiny-001")
    assert (end["event"], end["complete"], end["sweep_dir"]) == expected
    for event in finished:
        (run,) = event["run_dirs"]
        summary = json.loads((bench.folder / run / "summary.json").read_text())
        assert summary["validation_loss"] == event["objective"]
        assert summary["test_accuracy"] is None
    bench("plot", *[event["run_dirs"][0] for event in finished])


def test_training_of_a_trial_has_the_bytes_of_the_same_training_by_hand(
    grid: tuple[Bench, Done],
) -> None:
    bench, _ = grid
    commands = bench("sweep", bench.sweep_file(**GRID), "--commands").out.splitlines()
    assert len(commands) == 4
    nnctl, *arguments = shlex.split(commands[2])
    assert nnctl == "nnctl"
    bench(*arguments, "--run-dir", "by-hand")
    for name in ("best", "last"):
        theirs = bench.sweep / "trials/0002/seed-0/checkpoints" / f"{name}.safetensors"
        mine = bench.folder / "by-hand/checkpoints" / f"{name}.safetensors"
        assert theirs.read_bytes() == mine.read_bytes()


def test_finished_sweep_is_shown_again_and_left_as_it_is(grid: tuple[Bench, Done]) -> None:
    bench, done = grid
    before = {path: path.stat().st_mtime_ns for path in bench.sweep.rglob("*")}
    assert bench("sweep", "--resume", "tiny-001", "--json").events == [done.end]
    assert bench("sweep", "--resume", "tiny-001", "-q").out == "sweeps/tiny-001\n"
    shown = bench("sweep", "--resume", "tiny-001").out
    assert f"trial {done.end['best']} " in shown.lower()
    assert "test accuracy" in shown
    assert {path: path.stat().st_mtime_ns for path in bench.sweep.rglob("*")} == before


def test_sweep_without_a_file_says_the_same(bench: Bench) -> None:
    typed = ["-c", "tiny.yaml", "--set", "training.epochs=1", "--objective", "validation_accuracy"]
    varied = ["--vary", "optimizer.learning_rate=0.01,0.1", "--vary", "network.0.affine.units=[4]"]
    bench("sweep", *typed, *varied, "--seeds", "2", "--quiet")
    from nnctl.sweeps.folder import SweepFolder, read_search

    search = read_search(SweepFolder(bench.sweep))
    assert (search.set, search.seeds) == ({"training.epochs": 1}, 2)
    assert search.objective == "validation_accuracy"
    assert search.parameters == {
        "optimizer.learning_rate": [0.01, 0.1],
        "network.0.affine.units": [4],
    }
    found = trial(bench.sweep, 0)
    assert found["objective"] == pytest.approx(sum(found["objectives"]) / 2)
    runs = [bench.sweep / f"trials/0000/seed-{seed}" for seed in (0, 1)]
    accuracies = [json.loads((run / "summary.json").read_text()) for run in runs]
    assert found["objectives"] == [summary["validation_accuracy"] for summary in accuracies]


def test_winner_is_the_smallest_network_that_is_not_worse_by_more_than_chance(bench: Bench) -> None:
    parameters = {
        "network": [
            [{"affine": 32}, "relu", {"affine": 10}],
            [{"affine": 24}, "relu", {"affine": 10}],
            [{"affine": 1}, "relu", {"affine": 10}],
        ]
    }
    config = {"training.epochs": 12, "optimizer.learning_rate": 0.2}
    end = bench("sweep", bench.sweep_file(parameters=parameters, set=config), "--json").end
    objectives = [trial(bench.sweep, k)["objective"] for k in range(3)]
    assert objectives[2] > max(objectives[:2])
    assert (end["best"], end["tied"]) == (1, [0])


def test_no_trial_needs_the_test_set_and_the_winner_does(bench: Bench) -> None:
    images = bench.folder / "data/t10k-images-idx3-ubyte"
    content = images.read_bytes()
    images.write_bytes(b"not an IDX file")
    sweep = bench.sweep_file(parameters={"optimizer.learning_rate": [0.01, 0.1]})
    failed = bench("sweep", sweep, "--json", code=4)
    assert [event["event"] for event in failed.events].count("trial_finished") == 2
    assert "go on with: nnctl sweep --resume sweeps/tiny-001" in failed.err
    images.unlink()
    bench("sweep", "--resume", "tiny-001", "--quiet", code=4)
    images.write_bytes(content)
    again = bench("sweep", "--resume", "tiny-001", "--json")
    assert [event["event"] for event in again.events] == ["sweep_started", "sweep_finished"]
    checked = bench("evaluate", again.end["best_run_dirs"][0], "--json").end
    assert checked["accuracy"] == again.end["test_accuracy"]
    assert checked["accuracy_interval"] == again.end["test_accuracy_interval"]


def test_diverged_and_failed_trials_are_kept_and_never_run_again(bench: Bench) -> None:
    parameters = {"optimizer.learning_rate": [0.1, 1e30]}
    done = bench("sweep", bench.sweep_file(parameters=parameters), "--json")
    assert (done.end["complete"], done.end["diverged"], done.end["best"]) == (1, 1, 0)
    assert trial(bench.sweep, 1)["state"] == "diverged"
    before = results(bench.sweep)
    again = bench("sweep", "--resume", "tiny-001", "--json")
    assert again.end == done.end
    assert results(bench.sweep) == before


def test_sweep_of_which_every_trial_diverges_ends_with_6(bench: Bench) -> None:
    sweep = bench.sweep_file(parameters={"optimizer.learning_rate": [1e30, 1e31]})
    done = bench("sweep", sweep, "--json", code=6)
    assert "every trial diverged\nwhat may help 2 of 2 runs: a smaller learning rate" in done.err
    assert (done.end["diverged"], done.end["best"], done.end["test_accuracy"]) == (2, None, None)
    assert bench("sweep", "--resume", "tiny-001", "--json", code=6).end == done.end


def test_trial_whose_values_do_not_go_together_fails_and_says_why(bench: Bench) -> None:
    """Each value is checked with the first values of the others, not every combination."""
    parameters = {"data.validation": [100, 300], "data.train_size": [50, 150]}  # of 400
    done = bench("sweep", bench.sweep_file(parameters=parameters), "--json")
    assert (done.end["complete"], done.end["failed"]) == (3, 1)
    assert trial(bench.sweep, 3)["state"] == "failed"
    assert "data.train_size" in trial(bench.sweep, 3)["error"]


def test_pruned_trials_end_early_and_can_be_gone_on_with(bench: Bench) -> None:
    rates = [0.05, 0.06, 0.07, 0.08, 0.09, 0.0001, 0.1]
    content: dict[str, Any] = {
        "parameters": {"optimizer.learning_rate": rates},
        "prune": {"after": 1},
        "parallel": 1,
    }
    done = bench("sweep", bench.sweep_file(**content), "--json")
    states = [trial(bench.sweep, k)["state"] for k in range(7)]
    assert states[:5] == ["complete"] * 5  # a median needs five
    assert states[5] == "pruned"
    assert done.end["pruned"] == states.count("pruned")
    run = bench.sweep / "trials/0005/seed-0"
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1
    early = [trial(bench.sweep, k)["early"] for k in range(5)]
    assert trial(bench.sweep, 5)["early"] > sorted(early)[2]
    bench("train", "--resume", run, "--quiet")
    whole = bench.folder / "whole"
    bench("train", "-c", "tiny.yaml", "--lr", "0.0001", "--no-test", "--threads", "1", "-q",
          "--run-dir", whole)  # fmt: skip
    last = Path("checkpoints/last.safetensors")
    assert (run / last).read_bytes() == (whole / last).read_bytes()


def test_sweep_made_longer_on_other_data_ends_and_on_the_right_ones_is_as_if_so_long(
    bench: Bench,
) -> None:
    content = {"method": "random", "parameters": BAYES["parameters"], "parallel": 1}
    bench("sweep", bench.sweep_file(**content | {"trials": 1}), "--quiet")
    bench("sweep", "--resume", "tiny-001", "--trials", "0", "--quiet", code=2)
    images = bench.folder / "data/train-images-idx3-ubyte"
    right = images.read_bytes()
    images.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    changed = bench("sweep", "--resume", "tiny-001", "--trials", "2", "--quiet", code=4)
    assert "trial 1: trained on other data than earlier trials" in changed.err
    assert trial(bench.sweep, 1)["state"] == "running"
    images.write_bytes(right)
    assert bench("sweep", "--resume", "tiny-001", code=4).err.count("other data") == 1
    (folder,) = re.findall(r"remove (\S+) and bring", changed.err)
    shutil.rmtree(bench.folder / folder)
    done = bench("sweep", "--resume", "tiny-001", "--json")
    assert done.end["complete"] == 2
    bench("sweep", bench.sweep_file(**content | {"trials": 2}), "-q", "--sweeps-dir", "whole")
    assert results(bench.sweep) == results(bench.folder / "whole/tiny-001")


# Killed, stopped, in use.


def kill_again_and_again(bench: Bench, kills: int, rng: random.Random) -> int:
    """Kill the sweep, or one of its trainings, `kills` times; return how many hit."""
    hits = 0
    while hits < kills:
        process = bench.start("sweep", "--resume", "tiny-001", "--quiet")
        whole = rng.random() < 0.5
        time.sleep(rng.uniform(0.2, 1.6))
        if process.poll() is not None:
            return hits
        if whole:
            process.kill()
            process.communicate()
            wait_for(lambda: not bench.trainings(), within=5)  # one second, on a quiet machine
            hits += 1
        else:
            for pid in bench.trainings()[:1]:
                bench.kill(pid)
                hits += 1
            time.sleep(rng.uniform(0, 0.4))
            process.kill()
            process.communicate()
            hits += 1
            wait_for(lambda: not bench.trainings())
    return hits


def test_bayesian_sweep_that_is_killed_again_and_again_ends_the_same(bench: Bench) -> None:
    kills = 50 if bench.cycles > 20 else 4
    content = BAYES | {"trials": 40} if kills == 50 else BAYES
    whole = bench("sweep", bench.sweep_file(**content), "--sweeps-dir", "whole", "--json")
    process = bench.start("sweep", bench.sweep_file(**content), "--quiet")
    wait_for(lambda: (bench.sweep / "sweep.yaml").exists())
    process.kill()
    process.communicate()
    hits = kill_again_and_again(bench, kills, random.Random(0))
    done = bench("sweep", "--resume", "tiny-001", "--json")
    print(f"{hits} kills")
    assert results(bench.sweep) == results(bench.folder / "whole/tiny-001")
    ignored = ("seconds", "sweep_dir", "best_run_dirs")
    assert all(done.end[key] == whole.end[key] for key in done.end if key not in ignored)
    assert "killed" not in str([trial(bench.sweep, k)["error"] for k in range(content["trials"])])


def test_no_training_outlives_a_sweep_that_is_killed(bench: Bench) -> None:
    sweep = bench.sweep_file(**GRID, set={"training.epochs": 100000})
    process = bench.start("sweep", sweep, "--quiet")
    wait_for(lambda: len(bench.trainings()) == 2)
    process.kill()
    wait_for(lambda: not bench.trainings(), within=5)  # one second, on a quiet machine


def test_training_that_is_killed_goes_on_and_is_not_counted_as_failed(bench: Bench) -> None:
    content: dict[str, Any] = {
        "parameters": {"optimizer.learning_rate": [0.05]},
        "set": {"training.epochs": 100},
    }
    process = bench.start("sweep", bench.sweep_file(**content), "--json")
    wait_for(lambda: list(bench.sweep.rglob("last.safetensors")))
    for pid in bench.trainings():
        bench.kill(pid)
    done = bench.finish(process)
    assert (done.code, done.end["complete"], done.end["failed"]) == (0, 1, 0)
    assert "trial 0: its training was killed; it goes on" in done.err
    bench("sweep", bench.sweep_file(**content), "--quiet", "--sweeps-dir", "whole")
    assert results(bench.sweep) == results(bench.folder / "whole/tiny-001")


def test_interrupt_ends_within_two_seconds_and_says_how_to_go_on(bench: Bench) -> None:
    sweep = bench.sweep_file(**GRID, set={"training.epochs": 2000})
    process = bench.start("sweep", sweep, "--quiet")
    wait_for(lambda: len(bench.trainings()) == 2)
    wait_for(lambda: list(bench.sweep.rglob("last.safetensors")))
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    done = bench.finish(process)
    assert time.monotonic() - began < 2
    assert (done.code, done.out) == (130, "")
    (command,) = re.findall(r"go on with: nnctl (.*)", done.err)
    assert shlex.split(command) == ["sweep", "--resume", "sweeps/tiny-001"]
    assert bench.trainings() == []
    assert {trial(bench.sweep, k)["state"] for k in (0, 1)} == {"running"}


def test_two_sweeps_of_one_folder_are_refused(bench: Bench) -> None:
    sweep = bench.sweep_file(**GRID, set={"training.epochs": 2000})
    process = bench.start("sweep", sweep, "--quiet")
    wait_for(lambda: bench.trainings())
    second = bench("sweep", "--resume", "tiny-001", code=5)
    assert "in use by another process" in second.err
    process.send_signal(signal.SIGTERM)
    assert bench.finish(process).code == 143


def test_trainings_see_none_of_the_folders_modules(bench: Bench) -> None:
    """A student's folder may hold a random.py of its own."""
    (bench.folder / "random.py").write_text("raise SystemExit('the wrong module')")
    program = Path(sys.executable).with_name("nnctl")
    if not program.exists():
        pytest.skip("nnctl is not installed as a command")
    sweep = bench.sweep_file(parameters={"optimizer.learning_rate": [0.1]})
    done = subprocess.run([program, "sweep", sweep, "-q"], cwd=bench.folder, capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"sweeps/tiny-001\n")
