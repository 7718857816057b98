import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnctl.training.threads import (
    choose_evaluation_threads,
    choose_threads,
    confine_blas,
    requested,
    usable_cores,
)


def test_rule_takes_two_processes_where_a_step_is_worth_it() -> None:
    assert choose_threads(39_760, 100, True, 2) == 2
    assert choose_threads(39_760, 10, True, 2) == 1
    assert choose_threads(39_760, 100, True, 1) == 1
    assert choose_threads(10**6, 100, False, 2) == 1  # batch_norm sees the whole batch
    assert choose_threads(10**6, 100, True, 64) == 2


def test_rule_for_an_evaluation_looks_at_all_of_it() -> None:
    assert choose_evaluation_threads(39_760, 60_000, 2) == 2
    assert choose_evaluation_threads(39_760, 1_000, 2) == 1
    assert choose_evaluation_threads(39_760, 60_000, 1) == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_usable_cores_respect_affinity() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize("value", ["", "0", "-1", "two"])
def test_odd_blas_variables_ask_for_nothing(value: str) -> None:
    assert requested({"_NNCTL_OPENBLAS_NUM_THREADS": value}) is None


def test_blas_is_told_how_many_threads_to_use_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """OpenBLAS 0.3.34 crashes on some processors where kernels other than its own are chosen."""
    environment = {"OMP_NUM_THREADS": "3"}
    monkeypatch.setattr(os, "environ", environment)
    confine_blas()
    assert environment.pop("_NNCTL_OMP_NUM_THREADS") == "3"
    assert set(environment.values()) == {"1"}
    assert all(name.endswith("_THREADS") for name in environment)


def started_with(folder: Path, batch_size: int, *options: str, **variables: str) -> int:
    """Return the threads that a real process trains with."""
    command = [sys.executable, "-m", "nnctl", "train", "--config", "quickstart", "--json", "-q"]
    command += ["--epochs", "1", "--batch-size", f"{batch_size}", "--set", "data.train_size=100"]
    names = ("NNCTL_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    output = subprocess.run(
        [*command, *options],
        cwd=folder,
        env=environment | variables,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    threads = json.loads(output.splitlines()[0])["threads"]
    assert isinstance(threads, int)
    return threads


@pytest.mark.parametrize(
    ("option", "variables", "threads"),
    [
        ("3", {"NNCTL_THREADS": "2", "OPENBLAS_NUM_THREADS": "1"}, 3),
        ("", {"NNCTL_THREADS": "2", "OPENBLAS_NUM_THREADS": "1"}, 2),
        ("", {"OPENBLAS_NUM_THREADS": "3", "OMP_NUM_THREADS": "2"}, 3),
        ("", {"OMP_NUM_THREADS": "3"}, 3),
        ("", {"NNCTL_THREADS": "", "OMP_NUM_THREADS": ""}, 1),  # empty is unset
        ("", {}, 1),  # the rule, for a small batch
    ],
)
def test_threads_are_taken_from_option_then_variables_then_rule(
    tmp_path: Path, option: str, variables: dict[str, str], threads: int
) -> None:
    options = ["--threads", option] if option else []
    assert started_with(tmp_path, 5, *options, **variables) == threads


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_rule_takes_no_more_threads_than_the_command_may_use_cores(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    assert started_with(tmp_path, 100) == min(len(before), 2)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert started_with(tmp_path, 100) == 1
    finally:
        os.sched_setaffinity(0, before)
