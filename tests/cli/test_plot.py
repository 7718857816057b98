from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner

from nnctl.cli.group import cli, run
from nnctl.display import region
from nnctl.display.curves import step_rows
from nnctl.display.plot import smoothed
from nnctl.runs.lock import owned

Text = pytest.CaptureFixture[str]


def plot(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["plot", *arguments])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def test_latest_run_is_the_default(runs_dir: Path) -> None:
    text = plot()
    assert text.startswith("loss of unheld-001")
    assert "test (no validation set)" in text


def test_run_is_drawn_with_its_training_curve_and_best_epoch(runs_dir: Path) -> None:
    summary = json.loads((runs_dir / "wide-001" / "summary.json").read_bytes())
    legend = plot("wide-001").splitlines()[0]
    assert legend.startswith("loss of wide-001")
    assert "train" in legend
    assert "validation" in legend
    assert f"best epoch {summary['best_epoch']}" in legend


@pytest.mark.parametrize(
    ("metric", "title"),
    [("loss", "loss"), ("accuracy", "accuracy (%)"), ("gap", "gap in loss")],
)
def test_metric_is_the_one_asked_for(runs_dir: Path, metric: str, title: str) -> None:
    assert plot("wide-001", "--metric", metric).startswith(f"{title} of wide-001")


def train_tiny(*arguments: str) -> None:
    words = ["train", "-c", "tiny", "--epochs", "1", "-q", "--set", "training.log_steps=true"]
    assert run([*words, *arguments]) == 0


def test_batch_loss_is_drawn_step_by_step_over_the_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train_tiny("--name", "one", "--batch-size", "1")
    train_tiny("--name", "many", "--batch-size", "600")
    text = plot("--metric", "batch_loss", "one-001", "many-001", "--smooth", "3")
    assert text.startswith("batch loss, mean of 3 steps")
    assert "one-001 batch loss" in text
    assert "many-001 batch loss" in text
    rows = [{"epoch": 1, "step": 4}]
    assert [row["epoch"] for row in step_rows([3.0, 2.0, None, 1.0, 0.5], rows)] == [
        *(0, 0.25, 0.5, 0.75, 1)
    ]
    steps = Path("runs/many-001/steps.jsonl").read_text().splitlines()
    assert len(steps) == 3
    assert json.loads(steps[0])["batch_loss"] == pytest.approx(0.69, abs=0.2)  # about ln 2


def test_batch_loss_of_a_run_that_kept_none_says_how_to_keep_it(
    runs_dir: Path, capsys: Text
) -> None:
    assert run(["plot", "wide-001", "--metric", "batch_loss"]) == 5
    assert "--set training.log_steps=true" in capsys.readouterr().err


def test_two_runs_have_both_curves_and_more_runs_the_monitored_one(runs_dir: Path) -> None:
    two = plot("wide-001", "narrow-001")
    assert [two.count(f"-001 {part}") for part in ("train", "validation")] == [2, 2]
    three = plot("wide-001", "narrow-001", "unheld-001")
    assert [three.count(f"-001 {part}") for part in ("train", "validation", "test")] == [0, 2, 1]


def test_runs_of_one_name_are_told_apart_by_their_paths(runs_dir: Path) -> None:
    shutil.copytree(runs_dir / "wide-001", "elsewhere/wide-001")
    text = plot("wide-001", "elsewhere/wide-001").replace("\n", " ")
    assert "runs/wide-001 train" in text
    assert "elsewhere/wide-001 train" in text


def test_run_named_twice_is_drawn_once(runs_dir: Path) -> None:
    assert plot("wide-001", "runs/wide-001") == plot("wide-001")


def test_log_axis_has_a_label_for_each_power_of_ten(runs_dir: Path) -> None:
    path = runs_dir / "wide-001" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for exponent, row in enumerate(rows):
        row["train_loss"] = row["validation_loss"] = 10.0**-exponent
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    axis = [line.split("┤")[0].strip() for line in plot("wide-001", "--log").splitlines()]
    assert {"1", "0.1", "0.01"} <= set(axis)


def test_smooth_is_the_mean_around_each_epoch(runs_dir: Path) -> None:
    assert smoothed([(1, 1.0), (2, 2.0), (3, 6.0), (4, 1.0)], 2) == [
        (1, 1.0),
        (2, 1.5),
        (3, 4.0),
        (4, 3.5),
    ]
    assert smoothed([(1, 1.0), (2, None), (3, 3.0)], 3) == [(1, 1.0), (2, None), (3, 3.0)]
    assert smoothed([(1, 0.1)], 9) == [(1, 0.1)]
    assert ", mean of 3 epochs" in plot("wide-001", "--smooth", "3")


@pytest.mark.parametrize("name", ["curves.svg", "curves.PNG"])
def test_picture_has_the_same_bytes_every_time(runs_dir: Path, name: str) -> None:
    pytest.importorskip("matplotlib")
    for metric in ("loss", "gap"):
        assert plot("wide-001", "narrow-001", "--metric", metric, "--output", name) == ""
        first = Path(name).read_bytes()
        assert plot("wide-001", "narrow-001", "--metric", metric, "--output", name) == ""
        assert Path(name).read_bytes() == first
    assert first.startswith(b"\x89PNG" if name.endswith("PNG") else b"<?xml")


def test_picture_shows_every_curve(runs_dir: Path) -> None:
    pytest.importorskip("matplotlib")
    plot("wide-001", "--log", "--output", "a.svg")
    picture = Path("a.svg").read_text("utf-8")
    for text in ("loss of wide-001", "train", "validation", "best epoch", "epoch"):
        assert f"<!-- {text}" in picture


def test_picture_without_the_extra_says_how_to_install_it(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch, capfd: Text
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run(["plot", "--output", "a.svg"]) == 2
    assert "pip install 'nnctl[plot]'" in capfd.readouterr().err
    assert not Path("a.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--output", "curves.pdf"], 2, "must end in .svg or .png"),
        (["--output", "a.svg", "--follow"], 2, "can't be combined"),
        (["--output", "missing/a.svg"], 1, "missing/a.svg"),
        (["--smooth", "0"], 2, "--smooth"),
        (["--metric", "speed"], 2, "--metric"),
        (["nobody-001"], 5, "nobody-001"),
    ],
)
def test_what_can_not_be_plotted_is_told(
    runs_dir: Path, capfd: Text, arguments: list[str], code: int, words: str
) -> None:
    assert run(["plot", *arguments]) == code
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("nnctl: error: ")
    assert words in captured.err


def test_run_without_an_epoch_is_told(runs_dir: Path, capfd: Text) -> None:
    (runs_dir / "wide-001" / "metrics.jsonl").write_text("")
    for follow in ([], ["--follow"]):
        assert run(["plot", "wide-001", *follow]) == 5
        assert capfd.readouterr().err.endswith("no epoch is finished; the run has ended\n")
    (runs_dir / "wide-001" / "summary.json").unlink()
    with owned(runs_dir / "wide-001"):
        assert run(["plot", "wide-001"]) == 5
    assert capfd.readouterr().err.endswith("no epoch is finished yet\n--follow waits for one\n")


def test_follow_draws_until_the_run_is_over(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = runs_dir / "wide-001"
    rows = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    summary = (folder / "summary.json").read_bytes()
    (folder / "summary.json").unlink()
    (folder / "metrics.jsonl").write_text("")
    drawn: list[str] = []

    class Recorder(region.Region):
        def draw(self, content: object) -> None:
            drawn.append(plot_of(content))

    def train_on(seconds: float) -> None:
        """Another process finishes an epoch, or at last the run."""
        if rows:
            with (folder / "metrics.jsonl").open("a") as file:
                file.write(rows.pop(0))
        else:
            (folder / "summary.json").write_bytes(summary)

    monkeypatch.setattr(region, "can_redraw", lambda stream: True)
    monkeypatch.setattr(region, "Region", Recorder)
    monkeypatch.setattr(region, "sleep", train_on)
    with owned(folder):
        plot("wide-001", "--follow")
    assert drawn == ["0 epochs", "1 epochs", "2 epochs", "3 epochs", "3 epochs"]


def plot_of(chart: object) -> str:
    series = chart.series  # type: ignore[attr-defined]
    return f"{len(series[0].points)} epochs"


def test_follow_prints_the_end_once_where_nothing_can_be_redrawn(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = runs_dir / "wide-001" / "summary.json"
    content = summary.read_bytes()
    summary.unlink()
    finish: Callable[[float], object] = lambda seconds: summary.write_bytes(content)  # noqa: E731
    monkeypatch.setattr(region, "sleep", finish)
    with owned(runs_dir / "wide-001"):
        followed = plot("wide-001", "--follow")
    assert followed == plot("wide-001")


def test_follow_ends_when_the_run_is_killed_and_says_how_to_go_on(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch, capfd: Text
) -> None:
    (runs_dir / "wide-001" / "summary.json").unlink()
    expected = plot("wide-001")
    looks = []
    with ExitStack() as owner:
        owner.enter_context(owned(runs_dir / "wide-001"))

        def be_killed(seconds: float) -> None:
            owner.close()  # the lock goes with the process
            looks.append(seconds)
            assert len(looks) == 1

        monkeypatch.setattr(region, "sleep", be_killed)
        assert run(["plot", "wide-001", "--follow"]) == 0
    assert capfd.readouterr() == (
        expected,
        "nnctl: warning: wide-001: was killed before its end; "
        "go on with: nnctl train --resume runs/wide-001\n",
    )
