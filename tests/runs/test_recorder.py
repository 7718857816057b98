"""What a session leaves on the disk, and that nothing but its settings decides it."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnctl.config import Settings
from nnctl.datasets import DataSet, Samples
from nnctl.errors import Diverged, RunError
from nnctl.files import write_atomically
from nnctl.runs import recorder
from nnctl.runs.checkpoint import load
from nnctl.runs.folder import RunFolder, append_row, read_steps
from nnctl.runs.lock import new_run
from nnctl.runs.resume import resume_point
from nnctl.training.events import (
    TIMINGS,
    EpochFinished,
    Event,
    RunFinished,
    RunStarted,
    StepFinished,
)

Make = Callable[..., Settings]


def train(
    settings: Settings,
    data: DataSet,
    folder: Path,
    threads: int = 1,
    stop: Callable[[list[Event]], bool] = lambda events: False,
) -> list[Event]:
    """Train in `folder`, from where it was left."""
    run = RunFolder(folder)
    events: list[Event] = []
    with ExitStack() as stack:
        before = resume_point(run, ()) if run.config.exists() else None
        if before is None:
            stack.enter_context(new_run(folder, folder.parent, settings.name))
        for event in recorder.train(
            settings, data, run, threads=threads, before=before, stop=lambda: stop(events)
        ):
            events.append(event)
    return events


def last_step(events: list[Event]) -> int:
    """Return how many steps were done when the last event came."""
    steps = [event.step for event in events if isinstance(event, RunStarted | StepFinished)]
    steps += [event.step for event in events if isinstance(event, EpochFinished)]
    return max(steps, default=0)


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = RunFolder(folder).metrics.read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMINGS} for line in lines]


def test_run_folder_holds_what_the_events_told(
    tiny_data: DataSet, tiny_settings: Make, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    events = train(tiny_settings(), tiny_data, run.path)
    told = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert told == [vars(event) for event in events if isinstance(event, EpochFinished)]
    summary = json.loads(run.summary.read_text())
    finished = events[-1]
    assert isinstance(finished, RunFinished)
    assert summary["status"] == "completed"
    assert summary["test_loss"] == finished.test_loss
    assert summary["run_dir"] == str(run.path)
    manifest = json.loads(run.manifest.read_text())
    assert manifest["threads"] == 1
    assert manifest["data_sha256"] == dict(tiny_data.sha256)
    assert manifest["started"] <= manifest["ended"]
    assert manifest["seconds"] == finished.seconds
    lines = run.test_predictions.read_text().splitlines()
    assert lines[0] == "index,label,prediction,probability"
    assert len(lines) == 31
    lines = run.validation_predictions.read_text().splitlines()
    assert lines[0] == "index,label,prediction,probability,loss"
    losses = [float(line.split(",")[4]) for line in lines[1:]]
    assert sum(losses) / 40 == pytest.approx(finished.validation_loss)  # of the best epoch
    last, best = load(run.last).snapshot, load(run.best).snapshot
    assert last.progress.epoch == 3
    assert best.progress.epoch == finished.best_epoch
    names = sorted(str(path.relative_to(run.path)) for path in run.path.rglob("*"))
    assert names == sorted(
        [
            "checkpoints",
            "checkpoints/best.safetensors",
            "checkpoints/last.safetensors",
            "config.yaml",
            "manifest.json",
            "metrics.jsonl",
            "summary.json",
            "test_predictions.csv",
            "validation_predictions.csv",
        ]
    )


def test_run_without_test_set_chooses_the_same_weights_and_has_no_test_figures(
    tiny_data: DataSet, tiny_settings: Make, tmp_path: Path
) -> None:
    nothing = Samples(tiny_data.test.images[:0], tiny_data.test.labels[:0])
    untested = replace(tiny_data, test=nothing, sha256={"train-images-idx3-ubyte": "0" * 64})
    events = train(tiny_settings(), untested, tmp_path / "run")
    finished = events[-1]
    assert isinstance(finished, RunFinished)
    assert finished.status == "completed"
    assert finished.test_loss is finished.test_accuracy is None
    run, other = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "tested")
    assert not run.test_predictions.exists()
    train(tiny_settings(), tiny_data, other.path)
    assert run.validation_predictions.read_bytes() == other.validation_predictions.read_bytes()
    weights, others = (load(each.best).snapshot.parameters for each in (run, other))
    assert {name: array.tobytes() for name, array in weights.items()} == {
        name: array.tobytes() for name, array in others.items()
    }


def test_without_validation_no_best_checkpoint_is_chosen(
    tiny_data: DataSet, tiny_settings: Make, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    events = train(tiny_settings(data={"validation": 0}), tiny_data, run.path)
    assert not run.best.exists()
    finished = events[-1]
    assert isinstance(finished, RunFinished)
    assert finished.best_epoch is finished.validation_loss is None
    assert finished.test_loss == rows(run.path)[-1]["test_loss"]


EXPERIMENTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dropout": {"network": [{"affine": 6}, "relu", {"dropout": 0.3}, {"affine": 5}]},
    "batch_norm": {"network": [{"affine": 6}, "batch_norm", "tanh", {"affine": 5}]},
    "momentum": {"optimizer": {"kind": "momentum", "learning_rate": 0.05}},
    "adamw, clip_norm, cosine": {
        "optimizer": {"kind": "adamw"},
        "schedule": {"kind": "cosine", "warmup": 0.5},
        "training": {"clip_norm": 0.5},
    },
    "early stopping": {
        "optimizer": {"kind": "sgd", "learning_rate": 0.01},
        "training": {"epochs": 9, "early_stopping": {"patience": 2, "min_delta": 0.5}},
    },
    "augmented": {
        "data": {"augment": {"shift": 1, "rotate": 20, "elastic": {"strength": 1}}},
        "training": {"batch_size": 7},
    },
    "no validation": {"data": {"validation": 0}},
    "one batch": {"training": {"batch_size": 1000}},
    "mean squared error": {"loss": "mean_squared_error", "training": {"batch_size": 7}},
}


@pytest.mark.parametrize(
    ("name", "threads"),
    [
        *((name, 1) for name in EXPERIMENTS),
        *((name, 2) for name in ("dropout", "augmented", "adamw, clip_norm, cosine")),
    ],
)
def test_same_settings_leave_the_same_bytes_whatever_interrupts_them(
    tiny_data: DataSet, tiny_settings: Make, tmp_path: Path, name: str, threads: int
) -> None:
    """Twice in one go, under another name elsewhere, and stopped after every single step."""
    settings = tiny_settings(**EXPERIMENTS[name])
    one, two = tmp_path / "one", tmp_path / "some where" / "two"
    train(settings, tiny_data, one, threads)
    train(tiny_settings(name="other", **EXPERIMENTS[name]), tiny_data, two, threads)
    parted = tmp_path / "parted"
    for _ in range(100):
        before = RunFolder(parted)
        step = load(before.last).snapshot.progress.step if before.last.exists() else 0
        after = step + 4
        events = train(
            settings,
            tiny_data,
            parted,
            threads,
            lambda events: last_step(events) >= after,  # noqa: B023
        )
        assert isinstance(events[0], RunStarted)
        assert events[0].step == step
        if events[-1].status != "interrupted":  # type: ignore[union-attr]
            break
    for other in (two, parted):
        assert RunFolder(other).last.read_bytes() == RunFolder(one).last.read_bytes()
        if settings.data.validation:
            assert RunFolder(other).best.read_bytes() == RunFolder(one).best.read_bytes()
        assert rows(other) == rows(one)
        assert (
            RunFolder(other).test_predictions.read_bytes()
            == RunFolder(one).test_predictions.read_bytes()
        )
    if name == "early stopping":
        assert len(rows(one)) == 3
        assert json.loads(RunFolder(parted).summary.read_text())["status"] == "early_stopped"


def test_row_is_on_the_disk_before_the_checkpoints_and_the_best_before_the_last(
    tiny_data: DataSet, tiny_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever moment the process is killed at, `last` knows no epoch that the others lack."""
    written: list[str] = []

    def note(path: Path, *data: Any) -> None:
        write_atomically(path, *data)
        written.append(path.name)

    def note_row(run: RunFolder, row: EpochFinished) -> None:
        append_row(run, row)
        written.append("row")

    monkeypatch.setattr("nnctl.runs.recorder.write_atomically", note)
    monkeypatch.setattr("nnctl.runs.recorder.append_row", note_row)
    still = {"kind": "sgd", "learning_rate": 1e-12}  # the first epoch stays the best
    train(tiny_settings(optimizer=still), tiny_data, tmp_path / "run")
    epochs = [name for name in written if name == "row" or name.endswith(".safetensors")]
    assert epochs == [
        "row",
        "best.safetensors",
        "last.safetensors",
        *["row", "last.safetensors"] * 2,
    ]


def test_seeds_and_threads_do_matter(
    tiny_data: DataSet, tiny_settings: Make, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("one", "seed", "threads")]
    train(tiny_settings(), tiny_data, folders[0])
    train(tiny_settings(seed=1), tiny_data, folders[1])
    train(tiny_settings(), tiny_data, folders[2], threads=2)
    assert len({RunFolder(folder).last.read_bytes() for folder in folders}) == 3


def test_stop_that_comes_while_an_event_is_drawn_still_saves_its_step(
    tiny_data: DataSet, tiny_settings: Make, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    drawn = train(tiny_settings(), tiny_data, run.path, stop=lambda events: len(events) == 4)
    assert isinstance(drawn[-1], RunFinished)
    assert load(run.last).snapshot.progress.step == 3


def test_stop_before_the_first_step_leaves_a_run_to_go_on_with(
    tiny_data: DataSet, tiny_settings: Make, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    events = train(tiny_settings(), tiny_data, run.path, stop=lambda events: True)
    assert [type(event) for event in events] == [RunStarted, RunFinished]
    assert load(run.last).snapshot.progress.step == 0
    assert json.loads(run.summary.read_text())["status"] == "interrupted"
    assert rows(run.path) == []
    train(tiny_settings(), tiny_data, tmp_path / "whole")
    train(tiny_settings(), tiny_data, run.path)
    assert run.last.read_bytes() == RunFolder(tmp_path / "whole").last.read_bytes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": {"kind": "sgd", "learning_rate": 1e30}}, "learning rate 1e+30"),
        ({"optimizer": {"kind": "sgd", "learning_rate": 1e4}, "loss": "mean_squared_error"}, ""),
        (
            {
                "optimizer": {"kind": "sgd", "learning_rate": 0.5, "weight_decay": 20.0},
                "training": {"epochs": 100},
            },
            "the batch loss",
        ),
    ],
)
def test_divergence_keeps_the_last_finite_checkpoint_and_says_where(
    tiny_data: DataSet,
    tiny_settings: Make,
    tmp_path: Path,
    changes: dict[str, Any],
    words: str,
) -> None:
    run = RunFolder(tmp_path / "run")
    with pytest.raises(Diverged) as caught:
        train(tiny_settings(**changes), tiny_data, run.path)
    message = str(caught.value)
    assert words in message
    for fact in ("epoch ", "step ", "learning rate "):
        assert fact in message
    summary = json.loads(run.summary.read_text(), parse_constant=pytest.fail)
    assert summary["status"] == "diverged"
    assert summary["test_loss"] is None
    json.loads(f"[{','.join(run.metrics.read_text().splitlines())}]", parse_constant=pytest.fail)
    if run.last.exists():
        snapshot = load(run.last).snapshot
        assert len(rows(run.path)) == snapshot.progress.epoch
        assert all(np.isfinite(array).all() for array in snapshot.parameters.values())
    with pytest.raises(Diverged, match="it would do so again") as again:
        assert resume_point(run, ()).summary
    assert ("checkpoint is kept" in str(again.value)) == run.last.exists()
    remedy = summary["overfitting"]["remedy"]
    assert message.endswith(remedy)
    assert str(again.value).endswith(remedy)


def test_overflow_of_the_optimizer_alone_is_divergence(
    tiny_data: DataSet, tiny_settings: Make, tmp_path: Path
) -> None:
    """Losses and weights stay finite: but nobody could go on from such a checkpoint."""

    def layer(units: int, std: float) -> dict[str, Any]:
        return {"affine": {"units": units, "initializer": {"kind": "normal", "std": std}}}

    settings = tiny_settings(network=[layer(6, 1e-10), layer(5, 1e20)], loss="mean_squared_error")
    with pytest.raises(Diverged, match=r"square_sum is not finite \(epoch 1, step 4, learning"):
        train(settings, tiny_data, tmp_path / "run")
    assert rows(tmp_path / "run") == []
    summary = json.loads(RunFolder(tmp_path / "run").summary.read_text())
    assert (summary["epochs"], summary["best_epoch"], summary["train_loss"]) == (0, None, None)


def losses_of(folder: Path) -> list[tuple[int, float | None]]:
    return [(row.step, row.batch_loss) for row in read_steps(RunFolder(folder))]


def test_batch_loss_of_every_step_is_kept_where_asked_for(
    tiny_data: DataSet, tiny_settings: Make, tmp_path: Path
) -> None:
    events = train(tiny_settings(training={"log_steps": True}), tiny_data, tmp_path / "kept")
    losses = losses_of(tmp_path / "kept")
    assert [step for step, _ in losses] == [*range(1, last_step(events) + 1)]
    sizes = [event.step for event in events if isinstance(event, EpochFinished)]
    # The running means that the events tell are made of them.
    means = {event.step: event.batch_loss for event in events if isinstance(event, StepFinished)}
    first = [loss or 0.0 for _, loss in losses[: sizes[0] - 1]]
    for step in range(1, sizes[0]):
        assert means[step] == pytest.approx(np.mean(first[:step]), rel=1e-6)
    train(tiny_settings(), tiny_data, tmp_path / "plain")
    assert not (tmp_path / "plain" / "steps.jsonl").exists()
    with pytest.raises(RunError, match=r"training\.log_steps=true"):
        read_steps(RunFolder(tmp_path / "plain"))
    weights = [load(RunFolder(tmp_path / name).last).snapshot for name in ("kept", "plain")]
    for name, array in weights[0].parameters.items():
        np.testing.assert_array_equal(array, weights[1].parameters[name])


@pytest.mark.parametrize("stop_at", [1, 5, 7])
@pytest.mark.parametrize("rest", [b"", b'{"step":', b'{"step":9,"batch_loss":1.0}\nrubbish\n'])
def test_batch_losses_are_exact_after_an_interruption(
    tiny_data: DataSet, tiny_settings: Make, tmp_path: Path, stop_at: int, rest: bytes
) -> None:
    settings = tiny_settings(training={"log_steps": True})
    train(settings, tiny_data, tmp_path / "whole")
    parted = tmp_path / "parted"
    train(settings, tiny_data, parted, stop=lambda events: last_step(events) >= stop_at)
    assert len(losses_of(parted)) == stop_at
    with open(RunFolder(parted).steps, "ab") as file:  # what a kill may leave behind
        file.write(rest)
    train(settings, tiny_data, parted)
    steps = [RunFolder(folder).steps.read_bytes() for folder in (parted, tmp_path / "whole")]
    assert steps[0] == steps[1]


def test_batch_losses_that_are_gone_are_not_made_up(
    tiny_data: DataSet, tiny_settings: Make, tmp_path: Path
) -> None:
    settings = tiny_settings(training={"log_steps": True})
    train(settings, tiny_data, tmp_path / "run", stop=lambda events: last_step(events) >= 5)
    steps = RunFolder(tmp_path / "run").steps
    whole = steps.read_bytes()
    steps.write_bytes(b"".join(whole.splitlines(keepends=True)[:3]))
    with pytest.raises(RunError, match="ends at step 3, but the checkpoint is of step 5"):
        train(settings, tiny_data, tmp_path / "run")
    steps.write_bytes(whole.replace(b'"step":2', b'"step":7'))
    with pytest.raises(RunError, match=r"steps\.jsonl:2: damaged line"):
        train(settings, tiny_data, tmp_path / "run")


def test_batch_loss_that_diverged_is_the_last_that_is_kept(
    tiny_data: DataSet, tiny_settings: Make, tmp_path: Path
) -> None:
    huge = {"kind": "sgd", "learning_rate": 1e30}
    settings = tiny_settings(optimizer=huge, training={"log_steps": True})
    with pytest.raises(Diverged):
        train(settings, tiny_data, tmp_path / "run")
    *_, (_, last) = losses_of(tmp_path / "run")
    assert last is None
