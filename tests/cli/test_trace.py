"""`nnctl trace` as its user meets it."""

import io
import json
import re
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from nnctl.cli.group import cli, run
from nnctl.config import load_settings
from nnctl.datasets import Source, load
from nnctl.datasets.augmentation import Augmentation, Augmenter
from nnctl.display.digits import Picture
from nnctl.nn.layers import LAYERS
from nnctl.training.events import StepFinished
from nnctl.training.trainer import Trainer

SIGMOIDS = """
data: {dataset: mnist-sample}
network:
  - affine: {units: 20, initializer: {kind: normal, std: 3}}
  - sigmoid
  - affine: {units: 10, initializer: {kind: normal, std: 3}}
"""


def trace(*arguments: str, columns: int = 120, **env: str) -> str:
    result = CliRunner().invoke(
        cli, ["trace", *arguments], env={"COLUMNS": str(columns), **env}, catch_exceptions=False
    )
    assert result.exit_code == 0
    return result.stdout


def as_json(*arguments: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(trace(*arguments, "--json"))
    return report


@pytest.fixture
def sigmoids(tmp_path: Path) -> str:
    path = tmp_path / "sigmoids.yaml"
    path.write_text(SIGMOIDS)
    return str(path)


def test_trace_shows_a_row_for_each_layer_on_both_ways() -> None:
    text = trace()
    names = ["0.affine", "1.relu", "2.affine"]
    rows = [line.split()[0] for line in text.splitlines() if line[:2] in ("0.", "1.", "2.")]
    assert rows == names + names[::-1]
    assert "quickstart before training: a mini-batch of 100 images of mnist-sample" in text
    assert "ln(10) = 2.303" in text
    assert "100x100" in text
    assert "78,500" in text
    assert "Nothing looks wrong." in text
    assert "Image" not in text


def test_trace_says_what_looks_wrong_with_a_remedy_each(sigmoids: str) -> None:
    text = trace("--config", sigmoids)
    assert "outputs of 1.sigmoid are saturated" in text
    assert "far from ln(10)" not in text  # it follows
    both = "--config", sigmoids, "--set", "loss.label_smoothing=0.95"
    assert trace(*both).count("Remedy: ") == len(as_json(*both)["findings"]) == 2
    assert "Nothing looks wrong" not in text


def test_trace_json_has_full_figures_for_each_layer() -> None:
    report = as_json()
    assert report["name"] == "quickstart"
    assert report["dataset"] == "mnist-sample"
    assert report["run"] is report["sample"] is None
    assert report["findings"] == []
    assert (report["batch_size"], report["learning_rate"]) == (100, 0.1)
    affine, relu, _ = report["layers"]
    assert affine["name"] == "0.affine"
    assert affine["output_shape"] == [100, 100]
    assert affine["parameters"] == 78_500
    assert affine["saturated_fraction"] is affine["dead_units"] is None
    assert 0 < affine["update_ratio"] < 0.1
    assert relu["gradient_norm"] is None
    assert 0.3 < relu["zero_fraction"] < 0.8


def test_trace_help_names_every_field_of_the_json() -> None:
    text = " ".join(trace("--help").split())
    report = as_json("--index", "0")
    numbers = as_json("-c", "tiny")["numbers"]
    fields = [*report, *report["layers"][0], *report["sample"], *numbers, *numbers["layers"][0]]
    assert all(field in text for field in fields)


def test_trace_follows_the_batch_that_training_learns_from_first() -> None:
    settings = load_settings("quickstart", (("optimizer.learning_rate", "0.3"),))
    data = load("mnist-sample", Source(offline=True))
    with closing(Trainer(settings, data, threads=1)) as trainer:
        first = next(event for event in trainer.events() if isinstance(event, StepFinished))
    report = as_json("--lr", "0.3")
    assert report["batch_loss"] == pytest.approx(first.batch_loss, rel=1e-6)
    assert report["learning_rate"] == first.learning_rate


def test_trace_augmented_follows_the_images_that_training_learns_from_first() -> None:
    augment = ["--set", "data.augment={shift: 3, rotate: 30}"]
    settings = load_settings("quickstart", [("data.augment", "{shift: 3, rotate: 30}")])
    data = load("mnist-sample", Source(offline=True))
    with closing(Trainer(settings, data, threads=2)) as trainer:
        first = next(event for event in trainer.events() if isinstance(event, StepFinished))
    report = as_json(*augment, "--augmented", "--index", "7")
    assert report["batch_loss"] == pytest.approx(first.batch_loss, rel=1e-6)
    plain = as_json(*augment, "--index", "7")
    assert plain == as_json("--index", "7")
    assert plain["batch_loss"] != pytest.approx(first.batch_loss, rel=1e-3)
    assert plain["sample"]["loss"] != report["sample"]["loss"]
    text = trace(*augment, "--augmented", "--index", "7")
    assert "a mini-batch of 100 augmented images of mnist-sample" in text
    assert "Image 7 of the training file, augmented: " in text
    changed = Augmenter(Augmentation(3, 30), data.train.images, (28, 28), 0)(1, np.array([7]))
    console = Console(file=io.StringIO(), width=120)
    with console.capture() as captured:
        console.print(Picture(changed.reshape(28, 28)))
    for line in captured.get().splitlines():
        assert line in text


def test_trace_augmented_needs_an_augmentation(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["trace", "--augmented"]) == 2
    assert "--augmented: quickstart has no data.augment" in capsys.readouterr().err


def test_trace_index_shows_the_image_and_softmax_minus_target() -> None:
    sample = as_json("--index", "7")["sample"]
    data = load("mnist-sample", Source(offline=True))
    assert (sample["index"], sample["label"]) == (7, data.train.labels[7])
    expected = np.array(sample["probabilities"]) - np.eye(10)[sample["label"]]
    np.testing.assert_allclose(sample["gradient"], expected)
    assert sample["loss"] == pytest.approx(-np.log(sample["probabilities"][sample["label"]]))
    text = trace("--index", "7")
    assert f"Image 7 of the training file: {sample['label']}, read as" in text
    assert "█" in text
    assert "gradient at the logits = softmax - target" in text
    assert f"{sample['gradient'][sample['label']]:+.4f}" in text


def test_trace_index_says_when_label_smoothing_moves_the_target() -> None:
    smooth = ("--set", "loss.label_smoothing=0.1")
    text = trace("--index", "7", *smooth)
    assert "label smoothing 0.1 makes the target 0.91 instead of 1" in " ".join(text.split())
    assert "which training minimises" in text
    sample = as_json("--index", "7", *smooth)["sample"]
    assert sorted(sample["target"]) == pytest.approx([0.01] * 9 + [0.91])


def test_trace_index_takes_label_smoothing_over_a_single_class(tmp_path: Path) -> None:
    for part in ("train", "t10k"):
        images, labels = (
            tmp_path / f"{part}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")
        )
        images.write_bytes(struct.pack(">4I", 0x803, 1, 2, 2) + bytes(4))
        labels.write_bytes(struct.pack(">2I", 0x801, 1) + bytes(1))
    config = tmp_path / "single.yaml"
    config.write_text("data: {dataset: ./, validation: 0}\nnetwork: [affine: 1]\n")
    text = trace("-c", str(config), "--index", "0", "--set", "loss.label_smoothing=0.1")
    assert "label smoothing 0.1 makes the target 1 instead" in text


def test_trace_follows_a_batch_of_one_image() -> None:
    assert "a mini-batch of 1 image of mnist-sample" in trace("--batch-size", "1")


def test_trace_takes_mean_squared_error() -> None:
    arguments = ("--index", "7", "--set", "loss=mean_squared_error")
    text = trace(*arguments)
    assert "mean squared error" in text
    assert "2 (output - target) / 10" in text
    assert "softmax" not in text
    assert as_json(*arguments)["sample"]["probabilities"] is None


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "mean_squared_error"])
def test_trace_index_keeps_huge_outputs_readable(loss: str) -> None:
    huge = "network.2.affine.initializer={kind: normal, std: 1e30}"
    text = trace("--index", "0", "--set", huge, "--set", f"loss={loss}", columns=40)
    rows = [line for line in text.splitlines() if re.match(r"\d +-?\d\.\d{3}e\+", line)]
    assert len(rows) == 10  # a line for each class


def test_trace_of_a_run_uses_its_weights(tmp_path: Path) -> None:
    arguments = ["train", "-c", "quickstart", "--epochs", "1", "-q", "--threads", "1"]
    runs = ["--runs-dir", str(tmp_path / "runs")]
    assert CliRunner().invoke(cli, [*arguments, *runs]).exit_code == 0
    report = as_json("--run", "latest", *runs)
    assert report["run"] == "latest"
    assert report["loss"] < 1 < as_json()["loss"]
    assert report["findings"] == []
    assert "with the weights of latest" in trace("--run", "latest", *runs)


def test_trace_tells_what_is_not_finite_without_a_number_in_json() -> None:
    keys = [f"network.{index}.affine.initializer={{kind: normal, std: 1e20}}" for index in (0, 2)]
    report = as_json("--set", keys[0], "--set", keys[1])
    assert [finding["kind"] for finding in report["findings"]] == ["not_finite"]
    assert report["layers"][0]["activation_mean"] is not None
    assert report["layers"][2]["activation_std"] is None


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 120])
@pytest.mark.parametrize("config", ["quickstart", "sigmoid-mse"])
def test_trace_keeps_to_the_width_and_to_ascii_where_asked(config: str, columns: int) -> None:
    arguments = ["-c", config, "--index", "3", "--set", "data.dataset=mnist-sample"]
    text = trace(*arguments, columns=columns, LC_ALL="C")
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= columns
    if columns >= 40:
        assert "…" not in text
        assert "..." not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--index", "10000"], ["--index 10000", "10,000 training images", "0 to 9,999"]),
        (["--index", "-1"], ["--index"]),
        (["--set", "data.validation=10000"], ["no images to train on"]),
        (["--config", "quickstart", "--run", "latest"], ["can't be combined"]),
    ],
)
def test_trace_mistakes_end_with_two_and_say_what(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["trace", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("nnctl: error: ")
    assert all(word in err for word in words)


def test_trace_prints_every_number_of_a_small_network() -> None:
    text = trace("-c", "tiny", columns=80)
    numbers = as_json("-c", "tiny")["numbers"]
    assert text == trace("-c", "tiny", "--numbers", columns=80)
    arrays = [numbers["x"], numbers["scores"]]
    for layer in numbers["layers"]:
        arrays += [layer["y"], layer["dy"], *layer["parameters"].values()]
        arrays += [*layer["gradients"].values(), *layer["updated"].values()]
    shown = set(re.findall(r"-?[\d.]+(?:e-\d+)?", text))
    for value in np.concatenate([np.ravel(array) for array in arrays]):
        forms = {f"{value + 0.0:{form}}" for form in (".4f", ".3e", ".0f")}
        assert forms & shown, value
    for words in ("W (4, 3)", "dW = x^T dy (4, 3)", "db = sum of dy (3,)", "dx = dy W^T (2, 3)"):
        assert words in text
    assert f"loss = {numbers['batch_loss']:.4f}, the mean over 2" in text
    assert f"a loss of {numbers['new_batch_loss']:.4f} now" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "Nothing looks wrong." in text


def test_trace_numbers_of_a_large_network_are_asked_for_and_cut() -> None:
    assert as_json()["numbers"] is None
    text = trace("--numbers", columns=80)
    assert "x (100, 784)" in text
    assert "... 94 more rows, 778 more columns" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "Forward: what each layer puts out" in trace("-c", "tiny", "--no-numbers")


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "mean_squared_error"])
def test_trace_numbers_know_every_layer(layer: str, loss: str) -> None:
    option = {"affine": "{affine: 3}", "dropout": "{dropout: 0.5}"}.get(layer, layer)
    text = trace("-c", "tiny", "--set", f"network.1={option}", "--set", f"loss={loss}")
    assert f"1.{layer}: y = " in text
    assert "number by number" in text


def test_trace_numbers_take_the_rate_that_the_schedule_begins_with() -> None:
    slow = as_json("-c", "tiny", "--set", "schedule={kind: constant, warmup: 1}")["numbers"]
    assert slow["learning_rate"] == pytest.approx(0.1 / 900)


def test_trace_shows_how_the_values_of_each_layer_are_spread() -> None:
    report = as_json()
    for layer in report["layers"]:
        assert sum(layer["activation_histogram"]) == np.prod(layer["output_shape"])
    assert report["layers"][1]["activation_histogram"][0] > 5000  # what relu cuts off
    assert re.search(r"1\.relu .* █[▁-█]{9}$", trace(), re.MULTILINE)
    assert re.search(r"1\.relu .* @[_:=+*#@-]{9}$", trace(LC_ALL="C"), re.MULTILINE)


def test_trace_index_says_which_logarithm_the_loss_is() -> None:
    sample = as_json("--index", "7")["sample"]
    probability = sample["probabilities"][sample["label"]]
    assert f"loss = -ln {probability:.4g} = {sample['loss']:.4g} nats" in trace("--index", "7")
