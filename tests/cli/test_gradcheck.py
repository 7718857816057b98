"""`nnctl gradcheck` as its user meets it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from nnctl.cli.group import cli, run
from nnctl.datasets import Source, load
from nnctl.datasets.augmentation import Augmentation, Augmenter
from nnctl.datasets.batches import Gatherer
from nnctl.gradcheck.check import check
from nnctl.nn.functions import Array
from nnctl.nn.layers import Affine
from nnctl.nn.network import Network
from nnctl.training.shared_step import SharedStep

REPORT = {
    "verdict",
    "passed",
    "tolerance",
    "h",
    "samples",
    "checked",
    "failed",
    "kinks",
    "rounding",
    "parameters",
    "layers",
    "cause",
    "seconds",
}
SMALL = """
data: {dataset: mnist-sample, train_size: 100}
network:
  - affine: 12
  - batch_norm
  - relu
  - dropout: 0.2
  - affine: 10
loss: {kind: softmax_cross_entropy, label_smoothing: 0.1}
"""


def gradcheck(*arguments: str, columns: int = 80, **env: str) -> Result:
    return CliRunner().invoke(
        cli, ["gradcheck", *arguments], env={"COLUMNS": str(columns), **env}, catch_exceptions=False
    )


def as_json(*arguments: str) -> dict[str, Any]:
    result = gradcheck(*arguments, "--json")
    assert result.exit_code == 0
    report: dict[str, Any] = json.loads(result.stdout)
    return report


@pytest.fixture
def small(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return str(path)


@pytest.fixture
def wrong_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    def input_gradient(self: Affine, dout: Array) -> Array:
        dx: Array = -dout @ self.weight.T
        return dx

    monkeypatch.setattr(Affine, "input_gradient", input_gradient)


def test_gradcheck_checks_on_the_images_that_the_first_epoch_sees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Array] = []

    def spy(network: Any, loss: Any, x: Array, labels: Array, **options: Any) -> Any:
        seen.append(x)
        return check(network, loss, x, labels, **options)

    monkeypatch.setattr("nnctl.gradcheck.check.check", spy)
    plain = gradcheck("--samples", "40", "--per-parameter", "5")
    augment = ["--set", "data.augment={shift: 3, rotate: 30}"]
    augmented = gradcheck("--samples", "40", "--per-parameter", "5", *augment)
    assert plain.exit_code == augmented.exit_code == 0
    assert "40 images of" in plain.stdout
    assert "40 augmented images of" in augmented.stdout
    images = load("mnist-sample", Source()).train.images
    places = [np.flatnonzero((images == np.round(x * 255)).all(axis=1)) for x in seen[0]]
    change = Augmenter(Augmentation(3, 30), images, (28, 28), seed=0)
    np.testing.assert_array_equal(seen[1], change(1, np.concatenate(places)) / 255)


def test_gradcheck_json_has_the_fields_of_the_contract() -> None:
    report = as_json("--seed", "3")
    assert report.keys() == REPORT
    assert (report["verdict"], report["passed"]) == ("right", True)
    assert report["cause"] is None
    assert (report["h"], report["tolerance"], report["samples"]) == (1e-5, 1e-6, 8)
    for parameter in report["parameters"]:
        assert parameter.keys() == {
            "name",
            "shape",
            "checked",
            "failed",
            "kinks",
            "rounding",
            "max_relative_error",
            "worst",
        }
        assert parameter["worst"].keys() == {"index", "analytic", "numerical"}
        assert parameter["checked"] == min(64, np.prod(parameter["shape"]))
        worst = parameter["worst"]
        a, n = worst["analytic"], worst["numerical"]
        assert abs(a - n) / max(abs(a), abs(n)) == parameter["max_relative_error"] <= 1e-6
    assert [p["name"] for p in report["parameters"]] == [
        "0.affine.weight",
        "0.affine.bias",
        "2.affine.weight",
        "2.affine.bias",
    ]
    for key in ("checked", "failed", "kinks", "rounding"):
        assert report[key] == sum(p[key] for p in report["parameters"])
    names = ["0.affine", "1.relu", "2.affine", "softmax_cross_entropy"]
    assert [layer["name"] for layer in report["layers"]] == names
    for layer in report["layers"]:
        assert layer.keys() == {
            "name",
            "input_gradient_error",
            "parameter_gradient_error",
            "passed",
        }
        assert layer["passed"]
        assert layer["input_gradient_error"] <= 1e-6
    assert report["layers"][1]["parameter_gradient_error"] is None


def test_gradcheck_all_checks_every_parameter_of_a_real_network_quickly() -> None:
    report = as_json("--all", "--set", "network.0.affine.units=50")
    assert report["checked"] == 784 * 50 + 50 + 50 * 10 + 10
    assert report["passed"]
    assert report["seconds"] < 15  # about 1; a forward pass for each parameter takes minutes


def test_gradcheck_is_repeatable_and_seeded(small: str) -> None:
    first, again, other = (as_json("-c", small, "--seed", seed) for seed in "112")
    for report in (first, again, other):
        del report["seconds"]
    assert first == again != other


def test_gradcheck_shows_layers_parameters_and_a_verdict(small: str) -> None:
    result = gradcheck("-c", small)
    assert result.exit_code == 0
    assert result.stderr == ""
    for name in ("0.affine", "1.batch_norm", "2.relu", "3.dropout", "softmax_cross_entropy"):
        assert f"\n{name} " in result.stdout
    assert "1.batch_norm.weight" in result.stdout
    assert "small before training" in result.stdout
    assert "8 images of mnist-sample" in result.stdout
    assert "\nRight: " in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_gradcheck_fits_forty_columns_in_ascii(small: str) -> None:
    result = gradcheck("-c", small, "--sweep", columns=40, LC_ALL="C")
    assert result.stdout.isascii()
    assert max(map(len, result.stdout.splitlines())) <= 40


def test_gradcheck_fails_with_3_and_names_layer_and_cause(
    wrong_sign: None, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["gradcheck", "--seed", "1"]) == 3
    output = capfd.readouterr()
    cause = (
        "0.affine and 2.affine: the input gradient has the wrong sign: it is exactly -1 times the "
        "numerical one"
    )
    error = "nnctl: error: the gradients are wrong; standard output says where and why\n"
    assert output.err == error
    text = " ".join(output.out.split())
    assert text.count(cause) == 1
    assert f"Wrong: {cause}." in text
    assert "The worst entry is 0.affine." in text
    assert "WRONG" in output.out


def test_gradcheck_json_of_a_failure_is_json_alone(
    wrong_sign: None, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["gradcheck", "--json", "--seed", "1"]) == 3
    report = json.loads(capfd.readouterr().out)
    assert (report["verdict"], report["passed"]) == ("wrong", False)
    assert report["failed"] > 0
    assert [layer["passed"] for layer in report["layers"]] == [False, True, False, True]
    worst = report["parameters"][0]["worst"]
    assert worst["analytic"] == pytest.approx(-worst["numerical"], rel=1e-3)


def test_gradcheck_sweep_shows_the_error_against_h(small: str) -> None:
    for columns in (40, 80):
        shown = gradcheck("-c", small, "--sweep", columns=columns).stdout
        assert "relative error of the gradient" in shown
        assert re.search(r"smallest at h = \d+e-\d+\n", shown)
    report = as_json("-c", small, "--sweep")
    assert report.keys() == REPORT | {"sweep"}
    errors = {entry["h"]: entry["error"] for entry in report["sweep"]}
    best = min(errors, key=lambda h: errors[h])
    assert list(errors) == sorted(errors)
    assert 1e-8 < best < 1e-3
    assert errors[min(errors)] > 10 * errors[best] < errors[max(errors)]


def test_gradcheck_sweep_names_no_step_where_no_error_is_a_number(
    capfd: pytest.CaptureFixture[str],
) -> None:
    huge = (f"network.{i}.affine.initializer={{kind: normal, std: 1e300}}" for i in (0, 2))
    assert run(["gradcheck", "--sweep", *(f"--set={key}" for key in huge)]) == 3
    assert "no number at any h" in capfd.readouterr().out


def test_gradcheck_uses_the_weights_of_a_run(runs_dir: Path) -> None:
    trained, fresh = as_json("--run", "wide-001"), as_json()
    assert trained["passed"]
    assert trained["parameters"] != fresh["parameters"]
    result = gradcheck("--run", "wide-001")
    assert "with the weights of wide-001" in result.stdout


def test_gradcheck_takes_its_options(small: str) -> None:
    report = as_json(
        *("-c", small, "--samples", "5", "--per-parameter", "7", "--h", "1e-4"),
        *("--tolerance", "1e-5"),
    )
    assert (report["samples"], report["h"], report["tolerance"]) == (5, 1e-4, 1e-5)
    assert {p["checked"] for p in report["parameters"]} == {7}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--all", "--per-parameter", "5"], "can't be combined"),
        (["--samples", "101"], "there are 100 training images"),
        (["--samples", "0"], "--samples"),
        (["--h", "0"], "--h"),
        (["--h", "nan"], "nan"),
        (["--tolerance", "nan"], "nan"),
        (["--tolerance", "0"], "--tolerance"),
        (["--run", "latest"], "can't be combined"),
    ],
)
def test_gradcheck_refuses_options_that_make_no_sense(
    small: str, arguments: Sequence[str], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["gradcheck", "-c", small, *arguments]) == 2
    output = capfd.readouterr()
    assert output.out == ""
    assert output.err.startswith("nnctl: error: ")
    assert words in output.err


def zeroed(patch: pytest.MonkeyPatch) -> None:
    def backward(self: Network, dout: Array, **options: Any) -> Array:
        self.gradients[...] = 0
        return dout

    patch.setattr(Network, "backward", backward)


def flipped(patch: pytest.MonkeyPatch) -> None:
    backward = Network.backward
    patch.setattr(Network, "backward", lambda self, dout, **o: backward(self, -dout, **o))


def without_bias(patch: pytest.MonkeyPatch) -> None:
    backward = Network.backward

    def forgets(self: Network, dout: Array, **options: Any) -> Array:
        dout = backward(self, dout, **options)
        self.layers[-1].gradients["bias"][...] = 0
        return dout

    patch.setattr(Network, "backward", forgets)


def stale_label(patch: pytest.MonkeyPatch) -> None:
    labels = Gatherer.labels
    patch.setattr(Gatherer, "labels", lambda self, indices: labels(self, np.roll(indices, 1)))


def lost_shard(patch: pytest.MonkeyPatch) -> None:
    learn = SharedStep._learn

    def lost(self: SharedStep, y: Array, samples: Array, batch: int, douts: Array) -> None:
        learn(self, y, samples, batch, douts)
        douts[...] = 0 if self.rank else douts

    patch.setattr(SharedStep, "_learn", lost)


def wrong_batch_size(patch: pytest.MonkeyPatch) -> None:
    learn = SharedStep._learn
    patch.setattr(
        SharedStep,
        "_learn",
        lambda self, y, samples, batch, douts: learn(self, y, samples, len(samples), douts),
    )


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (zeroed, "is left at 0"),
        (flipped, "has the wrong sign"),
        (without_bias, "the gradient of 2.affine.bias is left at 0"),
        (stale_label, "the step reports a loss of"),
        (lost_shard, "shared by several processes, the step gives other gradients"),
        (wrong_batch_size, "shared by several processes, the step gives other gradients"),
    ],
)
def test_gradcheck_catches_what_is_wrong_with_the_step_that_trains(
    plant: Callable[[pytest.MonkeyPatch], None],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    plant(monkeypatch)
    assert run(["gradcheck"]) == 3
    output = " ".join(capfd.readouterr().out.split())
    assert "Wrong: every layer is right by itself, but not the step that joins them: " in output
    assert words in output


def test_gradcheck_says_that_several_processes_give_the_same(small: str) -> None:
    sentence = "Shared by several processes, the step gives the same gradients."
    assert sentence in gradcheck().stdout
    assert sentence not in gradcheck("-c", small).stdout  # batch_norm needs the whole batch


@pytest.mark.parametrize("units", [(4, 20), (2, 20), (8, 20)])
def test_gradcheck_is_right_where_a_layer_is_all_off(units: tuple[int, int]) -> None:
    layers = [f"{{affine: {n}}}, relu" for n in units]
    network = f"network=[{', '.join(layers)}, {{affine: 10}}]"
    for seed in range(5):
        report = as_json("--set", network, "--seed", str(seed))
        assert (report["verdict"], report["kinks"]) == ("right", 0)


def test_gradcheck_that_can_not_judge_says_why_and_fails_with_3(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert run(["gradcheck", "--tolerance", "1e-13"]) == 3
    output = capfd.readouterr()
    error = "nnctl: error: the gradients can't be judged; standard output says why\n"
    assert output.err == error
    assert "Undecided: " in output.out
    assert "WRONG" not in output.out
    assert run(["gradcheck", "--tolerance", "1e-13", "--json"]) == 3
    report = json.loads(capfd.readouterr().out)
    assert (report["verdict"], report["passed"]) == ("undecided", False)
    assert "rounding errors of the loss hide" in report["cause"]
    assert "a larger --h or --tolerance" in report["cause"]


def test_gradcheck_breaks_no_word_and_says_nothing_twice(
    wrong_sign: None, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["gradcheck"]) == 3
    output = capfd.readouterr()
    assert max(map(len, (output.out + output.err).splitlines())) <= 80
    words = set(output.out.split())
    assert {"numerical", "backpropagation", "exactly"} <= words
    assert (output.out + output.err).count("wrong sign") == 1
