"""Run folders: who may write to them, and what becomes of them when somebody else did."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nnctl.runs.checkpoint import dump, load
from tests.robustness.conftest import chosen

if TYPE_CHECKING:
    from tests.robustness.conftest import Lab, Run

ESCAPE = "\x1b[31m"


# Ownership.


def test_runs_that_start_at_once_never_share_a_folder(lab: Lab) -> None:
    config = lab.config(training={"epochs": 1})
    processes = [lab.start("train", "-c", config, "-q") for _ in range(4)]
    outcomes = [lab.finish(process).check(0) for process in processes]
    names = [f"tiny-00{i}" for i in range(1, 5)]
    assert sorted(outcome.out for outcome in outcomes) == [f"runs/{name}\n" for name in names]
    assert len({lab.run(name).last for name in names}) == 1
    assert (lab.runs / "latest").is_symlink()
    assert not os.path.isabs(os.readlink(lab.runs / "latest"))
    assert sorted(os.listdir(lab.runs)) == ["latest", *names]


def test_one_of_two_processes_gets_a_folder(lab: Lab) -> None:
    config = lab.config(training={"epochs": 10000})
    train = ["train", "-c", config, "-q", "--run-dir", "runs/tiny-001"]
    owner = lab.start(*train)
    while not lab.run().epochs:
        pass
    for arguments in (
        ["train", "--resume", "runs/tiny-001", "-q"],
        [*train, "--overwrite"],
    ):
        assert "in use by another process" in lab(*arguments).check(5).err
    assert "holds a run already" in lab(*train).check(5).err
    rows = lab.run().epochs
    while lab.run().epochs <= rows:  # undisturbed
        assert owner.poll() is None
    owner.kill()
    lab.finish(owner)
    # The lock of a dead process blocks nobody.
    lab("train", "--resume", "tiny-001", "-q", signals=[(0.2, 15)]).check(143)


def test_parallel_resumes_of_one_run_leave_the_right_bytes(lab: Lab) -> None:
    config = lab.config(training={"epochs": 20})
    lab("train", "-c", config, "-q", "--runs-dir", "whole").check(0)
    lab("train", "-c", config, "-q", when=(2, 9)).check(-9)
    processes = [lab.start("train", "--resume", "tiny-001", "-q") for _ in range(4)]
    outcomes = [lab.finish(process).check(0, 5) for process in processes]
    assert 0 in {outcome.status for outcome in outcomes}, [outcome.err for outcome in outcomes]
    assert lab.run().result == lab.run(lab.folder / "whole" / "tiny-001").result


def test_folder_of_somebody_else_stays_untouched(lab: Lab) -> None:
    config = lab.config()
    foreign = lab.folder / "foreign"
    (foreign / "checkpoints").mkdir(parents=True)
    for name in ("thesis.txt", "config.yaml", "metrics.jsonl", "checkpoints/last.safetensors"):
        (foreign / name).write_text("precious")
    web = lab.folder / "web"
    web.mkdir()
    (web / "manifest.json").write_text('{"name": "somebody\'s app", "version": "1.0"}')
    (web / "config.yaml").write_text("precious")
    before, before_web = lab.run(foreign).files, lab.run(web).files
    (lab.folder / "file").write_text("precious")
    (lab.folder / "loop").symlink_to(lab.folder / "loop")
    for path in ("foreign", "web", "file", "loop"):
        for overwrite in ([], ["--overwrite"]):
            outcome = lab("train", "-c", config, "--run-dir", path, *overwrite).check(5, 1)
            assert path in outcome.err
            assert outcome.out == ""
    lab("train", "--resume", "foreign").check(5)
    assert (lab.run(foreign).files, lab.run(web).files) == (before, before_web)
    assert (lab.folder / "file").read_text() == "precious"


def test_run_is_replaced_only_when_asked_to(lab: Lab, done: Run) -> None:
    config = lab.config("other", seed=7)
    before = done.files
    arguments = ["train", "-c", config, "-q", "--run-dir", str(done.path)]
    assert "holds a run already" in lab(*arguments).check(5).err
    assert done.files == before
    lab(*arguments, "--overwrite").check(0)
    assert "seed: 7" in (done.path / "config.yaml").read_text()
    assert done.summary["seed"] == 7
    # What can be told beforehand is told before the old run is given up.
    before = done.files
    lab("train", "-c", lab.config("wrong", network=["relu"]), *arguments[3:], "--overwrite").check(
        2
    )
    lab(*arguments, "--overwrite", "--set", "data.train_size=100000").check(2)
    assert done.files == before


def test_overwriting_that_is_killed_can_be_done_again(lab: Lab, done: Run) -> None:
    """At no moment is the folder one that nnctl would not know as its own."""
    arguments = ["train", "-c", lab.config(seed=7), "-q", "--run-dir", str(done.path)]
    backup = lab.folder / "backup"
    shutil.copytree(done.path, backup)
    calls = lab(*arguments, "--overwrite", below=done.path).check(0).calls
    expected = done.result
    for at in chosen(calls[: calls.index("mkdir checkpoints") + 7]):
        shutil.rmtree(done.path)
        shutil.copytree(backup, done.path)
        lab(*arguments, "--overwrite", below=done.path, at=at).check(-9)
        lab(*arguments, "--overwrite").check(0)
        assert done.result == expected, calls[at - 1]


def test_empty_folder_is_accepted_and_latest_is_not_a_run(lab: Lab) -> None:
    config = lab.config(training={"epochs": 1})
    for name in ("empty", "with space", "-dash", "new\nline", os.fsdecode(b"\xff\xfe")):
        (lab.folder / name).mkdir()
        outcome = lab("train", "-c", config, "--json", f"--run-dir={name}").check(0)
        assert outcome.events[-1]["status"] == "completed"
        assert lab.run(lab.folder / name).epochs == 1
        assert not (lab.runs / "latest").exists()
        lab("train", "--resume", f"./{name}", "-q").check(0)
    lab("train", "-c", config, "--run-dir", "runs/latest").check(2)
    for name in ("a/b", "..", "", "a b", f"a{ESCAPE}"):
        lab("train", "-c", config, "--name", name).check(2)
    assert not lab.runs.exists()


def test_folder_claimed_by_a_killed_process_is_swept_up(lab: Lab) -> None:
    config = lab.config(training={"epochs": 1})
    orphan, young, kept = (lab.runs / f"tiny-00{i}" for i in (1, 2, 3))
    for path in (orphan, young, kept):
        path.mkdir(parents=True)
    (orphan / ".nnctl-00000000-x.tmp").touch()
    (kept / "notes.txt").touch()
    for path in (orphan, kept):
        os.utime(path, (0, 0))
    assert lab("train", "-c", config, "-q").check(0).out == "runs/tiny-004\n"
    assert [path.exists() for path in (orphan, young, kept)] == [False, True, True]


# Going on.


def test_finished_run_is_shown_again_and_stays_as_it_is(lab: Lab, done: Run) -> None:
    before = done.files
    first = lab("train", "--resume", "latest", "--json").check(0)
    assert [event["event"] for event in first.events] == ["run_finished"]
    assert first.events[0]["status"] == "completed"
    lab("train", "--resume", "latest", "--require", "test_accuracy>1").check(3)
    lab("train", "--resume", "latest", "--epochs", "3").check(0)
    assert done.files == before


def test_more_epochs_go_on_as_if_they_had_been_asked_for_at_once(lab: Lab, done: Run) -> None:
    config = lab.config(training={"epochs": 5})
    lab("train", "-c", config, "-q", "--runs-dir", "whole").check(0)
    outcome = lab("train", "--resume", "latest", "--epochs", "5", "--json").check(0)
    assert [event.get("epoch") for event in outcome.events] == [None, 4, 5, None]
    assert outcome.events[0]["step"] == 18
    assert done.result == lab.run(lab.folder / "whole" / "tiny-001").result
    assert "epochs: 5" in (done.path / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--epochs", "2"], "training.epochs"),
        (["--lr", "0.5"], "optimizer.learning_rate: 0.001 -> 0.5"),
        (["--seed", "1", "--set", "network.0.affine.units=9"], "network.0.affine.units: 12 -> 9"),
        (["--set", "data.dataset=mnist"], "data.dataset"),
        (["--set", "training.checkpoint_seconds=1"], "training.checkpoint_seconds: 0.0 -> 1.0"),
        (["--name", "x"], "--name"),
        (["--run-dir", "x"], "--run-dir"),
        (["--overwrite"], "--overwrite"),
        (["--epochs", "-1"], "training.epochs"),
    ],
)
def test_nothing_but_more_epochs_can_be_asked_for(
    lab: Lab, done: Run, arguments: list[str], named: str
) -> None:
    before = done.files
    assert named in lab("train", "--resume", "latest", *arguments).check(2).err
    assert done.files == before


@pytest.mark.parametrize("kind", ["cosine", "one_cycle"])
def test_schedule_that_depends_on_the_length_can_not_be_made_longer(lab: Lab, kind: str) -> None:
    lab("train", "-c", lab.config(schedule={"kind": kind}), "-q").check(0)
    errors = lab("train", "--resume", "latest", "--epochs", "5").check(2).err
    assert f"training.epochs: the {kind} schedule depends on it" in errors
    assert "can be asked for" not in errors


def test_run_killed_before_its_first_checkpoint_starts_again(lab: Lab, done: Run) -> None:
    expected = done.result
    lab("train", "-c", lab.config(), "-q").check(0)
    run = lab.run("tiny-002")
    kill_before_first_checkpoint(run)
    lab("train", "--resume", "tiny-002", "-q").check(0)
    assert run.result == expected


def kill_before_first_checkpoint(run: Run) -> None:
    """Leave of a run what there is when its first epoch has been written, but no checkpoint."""
    for name in ("checkpoints/last.safetensors", "checkpoints/best.safetensors", "summary.json"):
        (run.path / name).unlink()
    metrics = run.path / "metrics.jsonl"
    metrics.write_text(metrics.read_text().splitlines(keepends=True)[0])


def test_checkpoint_that_is_gone_is_not_a_run_that_never_had_one(lab: Lab, done: Run) -> None:
    """Starting again would give up what is still there: rows, the end, the best weights."""
    last = done.path / "checkpoints" / "last.safetensors"
    resume = ["train", "--resume", "tiny-001", "-q"]
    last.unlink()
    backup = lab.folder / "backup"
    shutil.copytree(done.path, backup)
    for kept in ("metrics.jsonl", "summary.json", "checkpoints/best.safetensors"):
        last.touch()
        kill_before_first_checkpoint(done)
        shutil.copy(backup / kept, done.path / kept)
        before = done.files
        assert f"{last.name}: missing, but the run had written it" in lab(*resume).check(5).err
        assert done.files == before, kept
        shutil.rmtree(done.path)
        shutil.copytree(backup, done.path)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO], ids=errno.errorcode.get)
def test_folder_that_can_not_be_seen_is_not_empty(lab: Lab, done: Run, number: int) -> None:
    """As after `chmod 000 checkpoints`: nothing is started again, nothing chosen in its place."""
    before = done.files
    for hidden in (done.path / "checkpoints", done.path):
        for command in (
            ["train", "--resume", "tiny-001", "--epochs", "9"],
            ["train", "--resume", "tiny-001"],
            ["train", "-c", lab.config(), "--run-dir", "runs/tiny-001", "--overwrite", "--check"],
            ["evaluate", "tiny-001"],
        ):
            if hidden == done.path or "--overwrite" not in command:
                outcome = lab(*command, hidden=hidden, errno=number).check(1)
                assert "tiny-001" in outcome.err, outcome
            assert done.files == before


def test_any_look_may_fail(lab: Lab, done: Run) -> None:
    """Once, while a run goes on: then it is as it was, or went on as it should."""
    backup = lab.folder / "backup"
    shutil.copytree(done.path, backup)
    resume = ["train", "--resume", "tiny-001", "--epochs", "4", "-q"]
    looks = lab(*resume, hidden=done.path, at=10_000, errno=errno.EIO).check(0).calls
    expected, before = done.result, lab.run(backup).files
    assert len(looks) > 20
    for at in chosen(looks):
        shutil.rmtree(done.path)
        shutil.copytree(backup, done.path)
        outcome = lab(*resume, hidden=done.path, at=at, errno=errno.EIO).check(0, 1, 5)
        if outcome.status and done.files != before:  # it failed in the middle, and says how
            assert "go on with: nnctl train --resume runs/tiny-001" in outcome.err, looks[at - 1]
        if outcome.status:
            lab(*resume).check(0)
        assert done.result == expected, looks[at - 1]


def test_other_data_are_refused(lab: Lab, done: Run) -> None:
    shutil.copytree(lab.data, lab.folder / "data")
    path = lab.folder / "data" / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    config = done.path / "config.yaml"
    config.write_text(config.read_text().replace(str(lab.data), str(lab.folder / "data")))
    before = done.files
    outcome = lab("train", "--resume", "latest", "--epochs", "9", "-q").check(4)
    assert "t10k-labels-idx1-ubyte" in outcome.err
    assert done.files == before
    lab("train", "--resume", "latest", "--epochs", "9", "--check").check(4)
    # Also where they are too few, so that the run's config would not fit them.
    shutil.rmtree(lab.folder / "data")
    lab.write_data(lab.folder / "data", train=50)
    assert "bring the original" in lab("train", "--resume", "latest", "--epochs", "9").check(4).err
    assert done.files == before
    # Also before the first checkpoint.
    kill_before_first_checkpoint(done)
    assert "bring the original files back" in lab("train", "--resume", "latest").check(4).err


def test_threads_are_remembered_and_others_are_warned_of(lab: Lab) -> None:
    lab("train", "-c", lab.config(), "-q", "--threads", "2").check(0)
    more = ["train", "--resume", "latest", "--json", "--epochs"]
    outcome = lab(*more, "4").check(0)
    assert outcome.events[0]["threads"] == 2
    assert "warning" not in outcome.err
    outcome = lab(*more, "5", "--threads", "1").check(0)
    assert outcome.events[0]["threads"] == 1
    assert re.search("nnctl: warning: .*threads", outcome.err)


def test_other_versions_are_warned_of(lab: Lab, done: Run) -> None:
    path = done.path / "checkpoints" / "last.safetensors"
    checkpoint = load(path)
    then = checkpoint.versions | {"numpy": f"1.0{ESCAPE}"}
    path.write_bytes(b"".join(dump(replace(checkpoint, versions=then))))
    outcome = lab("train", "--resume", "latest", "-q", "--epochs", "4").check(0)
    (warning,) = outcome.err.splitlines()
    now = checkpoint.versions["numpy"]
    assert warning.startswith(
        f"nnctl: warning: numpy was 1.0\\x1b[31m, now it is {now}: the resumed run may differ"
    )
    # What was written since is of these versions.
    assert json.loads((done.path / "manifest.json").read_text())["versions"]["numpy"] == now
    assert lab("train", "--resume", "latest", "-q", "--epochs", "5").check(0).err == ""


def test_diverged_run_stays_diverged(lab: Lab) -> None:
    config = lab.config(optimizer={"kind": "sgd", "learning_rate": 1e6}, loss="mean_squared_error")
    outcome = lab("train", "-c", config, "--json").check(6)
    assert re.search(r"epoch \d+, step \d+, learning rate 1e\+06", outcome.err)
    assert "warning" not in outcome.err.lower()
    assert outcome.events[-1]["status"] == "diverged"
    before = lab.run().files
    for more in ([], ["--epochs", "9"]):
        assert "diverged" in lab("train", "--resume", "latest", "-q", *more).check(6).err
    assert lab.run().files == before


@pytest.mark.parametrize("torn", ["", '{"epoch": 4, "st', "x" * 1000, '{"epoch": 3}\n', "\0\n"])
def test_metrics_are_repaired_and_keep_their_timings(lab: Lab, done: Run, torn: str) -> None:
    expected, path = done.rows, done.path / "metrics.jsonl"
    text = path.read_text()
    path.write_text(text + torn)
    (done.path / "summary.json").unlink()
    lab("train", "--resume", "latest", "-q").check(0)
    assert path.read_text() == text
    assert done.rows == expected
    lines = text.splitlines(keepends=True)
    path.write_text(lines[0] + "damaged\n" + lines[2])
    (done.path / "summary.json").unlink()
    lab("train", "--resume", "latest", "-q").check(0)
    assert done.rows == expected
    assert path.read_text().splitlines(keepends=True)[::2] == lines[::2]


def test_seconds_add_up_over_interruptions(lab: Lab) -> None:
    config = lab.config(training={"epochs": 15})
    began = ["train", "-c", config, "-q"]
    seconds = 0.0
    for number, arguments in enumerate((began, *[["train", "--resume", "latest", "-q"]] * 5)):
        outcome = lab(*arguments, when=(1 + 3 * number, 15)).check(0, 143)
        told = json.loads((lab.run().path / "summary.json").read_text())["seconds"]
        assert told >= seconds
        seconds = told
        if outcome.status == 0:
            break
    lines = (lab.run().path / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert seconds >= sum(row["seconds"] for row in rows)


# What a stranger may have put there.


LOOKING = [
    ["train", "--resume", "runs/tiny-001", "--epochs", "4", "-q"],
    ["evaluate", "runs/tiny-001"],
    ["runs", "show", "tiny-001"],
    ["runs", "list"],
    ["plot", "runs/tiny-001"],
]


HOSTILE = ["manifest.json", "summary.json", "metrics.jsonl", "config.yaml"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_of_a_run_are_told_of(lab: Lab, done: Run, name: str) -> None:
    path = done.path / name
    good = path.read_bytes()
    backup = lab.folder / "backup"
    shutil.copytree(done.path, backup)
    contents = [
        *(b"", b"[]", b"{}", b"[" * 100_000, b"\xff\xfe\x00" * 100),
        b'{"threads": 1e9, "seconds": "x", "epoch": 1e300, "status": "\\u001b[31m"}\n',
        b"!!python/object/apply:os.system ['touch executed']\n",
        good.replace(b"tiny", b"\x1b[31m"),
        good.replace(b"1", b"9" * 400),
        good.replace(b'"', b'"\\u001b[2J'),
    ]
    for turn, content in enumerate(contents, HOSTILE.index(name)):
        path.write_bytes(content)
        for number, arguments in enumerate(LOOKING):
            if lab.cycles > 20 or (number - turn) % len(LOOKING) in (0, 2):
                lab(*arguments).check(0, 2, 5)
        assert not (lab.folder / "executed").exists()
        shutil.rmtree(done.path)
        shutil.copytree(backup, done.path)


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/full", "pipe", "folder", "nowhere", "loop"])
def test_links_and_pipes_in_a_run_are_not_followed_into_the_abyss(
    lab: Lab, done: Run, target: str
) -> None:
    os.mkfifo(lab.folder / "pipe")
    (lab.folder / "folder").mkdir()
    (lab.folder / "loop").symlink_to(lab.folder / "loop")
    names = ["manifest.json", "summary.json", "metrics.jsonl", "config.yaml"]
    names += ["checkpoints/last.safetensors", "checkpoints/best.safetensors"]
    backup = lab.folder / "backup"
    shutil.copytree(done.path, backup)
    for name in names:
        (done.path / name).unlink()
        (done.path / name).symlink_to(lab.folder / target)
        for arguments in LOOKING:
            assert lab(*arguments).check(0, 1, 2, 5).seconds < 5
        shutil.rmtree(done.path)
        shutil.copytree(backup, done.path)


def test_nothing_is_written_through_a_link(lab: Lab, done: Run) -> None:
    precious = lab.folder / "precious"
    shutil.copytree(done.path, precious)
    before = lab.run(precious).files
    for name in ("metrics.jsonl", "summary.json", "manifest.json", "config.yaml"):
        (done.path / name).unlink()
        (done.path / name).symlink_to(precious / name)
    lab("train", "--resume", "tiny-001", "--epochs", "4", "-q").check(0)
    assert done.epochs == 4
    shutil.rmtree(done.path / "checkpoints")
    (done.path / "checkpoints").symlink_to(precious / "checkpoints")
    lab("train", "--resume", "tiny-001", "--epochs", "5", "-q").check(5)
    arguments = ["train", "-c", lab.config(), "-q", "--run-dir", "runs/tiny-001", "--overwrite"]
    lab(*arguments).check(0)
    assert lab.run(precious).files == before


def test_checkpoints_of_another_run_are_refused(lab: Lab, done: Run) -> None:
    lab("train", "-c", lab.config("other", seed=3), "-q").check(0)
    other = lab.run("other-001")
    best = Path("checkpoints") / "best.safetensors"
    (done.path / best).write_bytes(other.best)
    outcome = lab("train", "--resume", "tiny-001", "--epochs", "5", "-q").check(5)
    assert "is of another run" in outcome.err
    (done.path / best).unlink()
    for how in ("-q", "--check"):
        lab("train", "--resume", "tiny-001", "--epochs", "5", how).check(5)
    last = other.path / "checkpoints" / "last.safetensors"
    last.write_bytes(done.last)
    assert "seed: 0 -> 3" in lab("train", "--resume", "other-001", "-q").check(2).err


def test_damaged_checkpoint_is_refused_and_kept(lab: Lab, done: Run) -> None:
    path = done.path / "checkpoints" / "last.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    before = done.files
    for command in (["train", "--resume", "latest"], ["evaluate", "--checkpoint", "last"]):
        assert str(path.name) in lab(*command).check(5).err
    assert done.files == before


# The proof.


def test_verify_tells_whether_a_run_can_be_interrupted(lab: Lab, done: Run) -> None:
    before = done.files
    proof = lab("runs", "verify", "latest", "--json").check(0).events[0]
    assert proof["exact"] is True
    assert proof["uninterrupted"] == proof["interrupted"] == proof["recorded"]
    assert proof["recorded"] == hashlib.sha256(done.last).hexdigest()
    assert (proof["step"], proof["steps"]) == (9, 18)  # in the middle of the second epoch
    assert done.files == before
    # A checkpoint that this machine would not have come to.
    path = done.path / "checkpoints" / "last.safetensors"
    checkpoint = load(path)
    checkpoint.snapshot.parameters["0.affine.bias"][0] += 1e-3
    path.write_bytes(b"".join(dump(checkpoint)))
    outcome = lab("runs", "verify", "latest", "--json").check(3)
    assert "other versions or threads in a part of the run" in outcome.err
    proof = outcome.events[0]
    assert proof["uninterrupted"] == proof["interrupted"] != proof["recorded"]
    # Of a run that isn't complete only the copies can be compared.
    lab("train", "-c", lab.config(), "-q", below=lab.runs / "tiny-002", at=60).check(-9)
    proof = lab("runs", "verify", "tiny-002", "--json").check(0).events[0]
    assert proof["recorded"] is None


def test_verify_interrupts_a_run_of_two_steps_between_them(lab: Lab) -> None:
    config = lab.config(training={"epochs": 2, "batch_size": 1000})
    lab("train", "-c", config, "-q").check(0)
    proof = lab("runs", "verify", "latest", "--json").check(0).events[0]
    assert (proof["step"], proof["steps"], proof["exact"]) == (1, 2, True)
