"""What a config means: defaults, short forms, numbers, paths, round trips, shapes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from nnctl.config import (
    Choice,
    EarlyStopping,
    Settings,
    build,
    bundled_configs,
    check_shapes,
    differences,
    load_settings,
    settings_from_dict,
    to_dict,
    to_yaml,
    warnings,
    with_counts,
)
from nnctl.datasets import describe
from nnctl.datasets.augmentation import Augmentation, Elastic
from nnctl.errors import ConfigError
from nnctl.nn.initializers import INITIALIZERS, HeNormal, Normal, XavierUniform
from nnctl.nn.layers import LAYERS, Affine
from nnctl.nn.losses import LOSSES
from nnctl.nn.optimizers import OPTIMIZERS
from nnctl.nn.schedules import SCHEDULES

Load = Callable[..., Settings]
BUNDLED = [config.name for config in bundled_configs()]


def affine(units: int, **initializer: Any) -> Choice:
    return Choice("affine", {"units": units, "initializer": initializer or {"kind": "he_normal"}})


def test_defaults_are_those_of_the_contract(load: Load) -> None:
    assert to_dict(load("network: [{affine: 10}]")) == {
        "name": "a",
        "seed": 0,
        "data": {
            "dataset": "mnist",
            "validation": 5000,
            "train_size": None,
            "split_seed": 0,
            "augment": None,
        },
        "network": [{"affine": {"units": 10, "initializer": {"kind": "he_normal"}}}],
        "loss": {"kind": "softmax_cross_entropy", "label_smoothing": 0.0},
        "optimizer": {"kind": "sgd", "learning_rate": 0.1, "weight_decay": 0.0},
        "schedule": {"kind": "constant", "warmup": 0.0},
        "training": {
            "epochs": 16,
            "batch_size": 100,
            "early_stopping": None,
            "clip_norm": None,
            "checkpoint_seconds": 30.0,
            "log_steps": False,
        },
    }


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("sgd", {"learning_rate": 0.1}),
        ("momentum", {"learning_rate": 0.1, "momentum": 0.9}),
        ("nesterov", {"learning_rate": 0.1, "momentum": 0.9}),
        ("adagrad", {"learning_rate": 0.01, "epsilon": 1e-8}),
        ("rmsprop", {"learning_rate": 0.01, "rho": 0.9, "epsilon": 1e-8}),
        ("adam", {"learning_rate": 0.001, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}),
        (
            "adamw",
            {
                "learning_rate": 0.001,
                "beta1": 0.9,
                "beta2": 0.999,
                "epsilon": 1e-8,
                "weight_decay": 0.01,
            },
        ),
    ],
)
def test_each_optimizer_has_its_own_defaults(
    load: Load, kind: str, options: dict[str, float]
) -> None:
    optimizer = load(f"network: [{{affine: 10}}]\noptimizer: {kind}").optimizer
    assert optimizer == Choice(kind, {"weight_decay": 0.0, **options})


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("relu", "{relu: {}}"),
        ("{relu: }", "{relu: {}}"),
        ("leaky_relu", "{leaky_relu: {slope: 0.01}}"),
        ("{leaky_relu: 0.2}", "{leaky_relu: {slope: 0.2}}"),
        ("{dropout: 0.5}", "{dropout: {rate: 0.5}}"),
        ("{affine: 9}", "{affine: {units: 9, initializer: {kind: he_normal}}}"),
        (
            "{affine: {units: 9, initializer: zeros}}",
            "{affine: {initializer: {kind: zeros}, units: 9}}",
        ),
        (
            "{affine: {units: 9, initializer: {normal: {std: 0.1}}}}",
            "{affine: {units: 9, initializer: {kind: normal, std: 0.1}}}",
        ),
        ("{affine: 9.0}", "{affine: 9}"),
        ("batch_norm", "{batch_norm: {momentum: 0.9, epsilon: 1e-5}}"),
    ],
)
def test_short_form_of_a_layer_means_the_long_one(load: Load, short: str, long: str) -> None:
    text = "network: [{{affine: 10}}, {}]"
    assert load(text.format(short)) == load(text.format(long))


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("optimizer: adam", "optimizer: {kind: adam}"),
        ("optimizer: {learning_rate: 1}", "optimizer: {kind: sgd, learning_rate: 1.0}"),
        ("optimizer: {adam: {beta1: 0.5}}", "optimizer: {kind: adam, beta1: 0.5}"),
        ("optimizer: {adam: {}}", "optimizer: {kind: adam}"),
        ("optimizer: {adam: }", "optimizer: {kind: adam}"),
        ("schedule: {step: {every: 3}}", "schedule: {kind: step, every: 3}"),
        ("loss: mean_squared_error", "loss: {kind: mean_squared_error}"),
        ("schedule: step", "schedule: {kind: step, every: 10, factor: 0.1}"),
        ("schedule: {warmup: 1}", "schedule: {kind: constant, warmup: 1}"),
        ("training:", "training: {}"),
        ("data:", ""),
    ],
)
def test_short_form_of_a_choice_means_the_long_one(load: Load, short: str, long: str) -> None:
    assert load(f"network: [{{affine: 10}}]\n{short}") == load(f"network: [{{affine: 10}}]\n{long}")


@pytest.mark.parametrize(
    ("text", "value"), [("010", 10), ("0x10", 16), ("0o10", 8), ("1e3", 1000), ("+7", 7)]
)
def test_numbers_follow_yaml_1_2(load: Load, text: str, value: int) -> None:
    assert load(f"network: [{{affine: 10}}]\nseed: {text}").seed == value


def test_whole_number_is_a_float_where_one_is_wanted(load: Load) -> None:
    rate = load("network: [{affine: 10}]\noptimizer: {learning_rate: 1}").optimizer.options
    assert type(rate["learning_rate"]) is float


def test_every_settings_key_is_read(load: Load) -> None:
    settings = load(
        """
        name: all-of_it.2
        seed: 3
        data:
          dataset: fashion-mnist
          validation: 7
          train_size: 8
          split_seed: 9
          augment: {shift: 1, rotate: 2, scale: 0.3, shear: 0.4, elastic: {strength: 5}}
        network: [{affine: {units: 10, initializer: {kind: normal, std: 0.1}}}]
        loss: {kind: softmax_cross_entropy, label_smoothing: 0.1}
        optimizer: {kind: adamw, weight_decay: 0.2}
        schedule: {kind: cosine, final: 0.1, warmup: 0.5}
        training:
          epochs: 2
          batch_size: 3
          early_stopping: {patience: 4, min_delta: 0.5}
          clip_norm: 1
          checkpoint_seconds: 0
        """
    )
    assert settings.name == "all-of_it.2"
    assert vars(settings.data) == {
        "dataset": "fashion-mnist",
        "validation": 7,
        "train_size": 8,
        "split_seed": 9,
        "augment": Augmentation(1.0, 2.0, 0.3, 0.4, Elastic(5.0, 5.0)),
    }
    assert settings.network == (affine(10, kind="normal", std=0.1),)
    assert settings.loss.options == {"label_smoothing": 0.1}
    assert settings.schedule == Choice("cosine", {"final": 0.1, "warmup": 0.5})
    assert settings.training.early_stopping == EarlyStopping(patience=4, min_delta=0.5)
    assert (settings.training.clip_norm, settings.training.checkpoint_seconds) == (1.0, 0.0)


# How many images are held out.


@pytest.mark.parametrize(
    ("dataset", "written", "count"),
    [
        ("mnist", "null", 5000),
        ("mnist-sample", "null", 1000),
        ("mnist", "0.1", 6000),
        ("mnist", "0.29", 17_400),  # not 17,399, which is what the product would be cut to
        ("mnist-sample", "0.5", 5000),
        ("mnist", "1.0", 1),
        ("mnist", "0", 0),
        ("mnist", "7", 7),
        ("./digits", "null", None),  # its size is not known yet
        ("./digits", "0.25", 0.25),
    ],
)
def test_validation_is_a_count_as_soon_as_the_data_set_is_known(
    load: Load, dataset: str, written: str, count: float | None
) -> None:
    text = f"network: [{{affine: 10}}]\ndata: {{dataset: {dataset}, validation: {written}}}"
    assert load(text).data.validation == count
    if written == "null":
        assert load(text.replace(", validation: null", "")) == load(text)


@pytest.mark.parametrize(
    ("written", "train_samples", "count"),
    [
        ("null", 200, 20),
        ("null", 49_999, 4999),
        ("null", 10**6, 5000),
        ("null", 9, 0),
        ("0.5", 201, 100),
        ("0.1", 95, 10),
        ("3", 200, 3),
    ],
)
def test_validation_of_a_folder_is_a_count_once_its_size_is_known(
    load: Load, written: str, train_samples: int, count: int
) -> None:
    text = f"network: [{{affine: 10}}]\ndata: {{dataset: ./digits, validation: {written}}}"
    settings = with_counts(load(text), train_samples)
    assert settings.data.validation == count
    assert type(settings.data.validation) is int
    assert f"validation: {count}\n" in to_yaml(settings)
    assert settings.data.monitored == ("validation" if count else "test")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            "validation: 300",
            "a.yaml:2:39: data.validation: 300 images are to be held out, but the training set "
            "has 200\n",
        ),
        ("validation: 200", "a.yaml:2:39: data.validation leaves no images to train on; hold out"),
        ("validation: 0.999", "a.yaml:2:39: data.validation leaves no images to train on"),
        ("validation: 0.001", "a.yaml:2:39: data.validation: 0.001 of 200 images is none; hold"),
        (
            "train_size: 190",
            "a.yaml:2:39: data.train_size: 190 images, but the training set has 180 beside those "
            "that are held out\n",
        ),
    ],
)
def test_more_images_than_there_are_are_refused_where_they_are_asked_for(
    load: Load, data: str, message: str
) -> None:
    settings = load(f"network: [{{affine: 10}}]\ndata: {{dataset: ./digits, {data}}}")
    with pytest.raises(ConfigError) as caught:
        with_counts(settings, 200)
    assert str(caught.value).startswith(message)


def test_early_stopping_needs_a_validation_set_by_default_too(load: Load) -> None:
    settings = load(
        "network: [{affine: 10}]\ndata: {dataset: ./digits}\n"
        "training: {early_stopping: {patience: 1}}"
    )
    with pytest.raises(ConfigError, match="a tenth of 9 images is none"):
        with_counts(settings, 9)


# What is asked for in vain.


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "schedule: {warmup: 20}\ntraining: {epochs: 5}",
            "schedule.warmup of 20 epochs is longer than the training of 5: the learning rate ends "
            "at 0.025 and never reaches 0.1",
        ),
        (
            "schedule: {kind: cosine, warmup: 5.5}\ntraining: {epochs: 5}",
            "ends at 0.0909 and never",
        ),
        (
            "data: {train_size: 50}",
            "training.batch_size is larger than the 50 training images: they are one batch, and "
            "each epoch is one step",
        ),
        (
            "training: {epochs: 3, early_stopping: {patience: 3}}",
            "training.early_stopping.patience of 3 epochs can't run out in 3: training will not "
            "stop early",
        ),
    ],
)
def test_what_is_asked_for_in_vain_is_warned_of(load: Load, text: str, warning: str) -> None:
    (found,) = warnings(load(f"network: [{{affine: 10}}]\n{text}"), 60_000)
    assert warning in found


def test_what_can_be_done_is_not_warned_of(load: Load) -> None:
    text = (
        "network: [{affine: 10}]\nschedule: {warmup: 5}\n"
        "data: {train_size: 100}\ntraining: {epochs: 5, early_stopping: {patience: 4}}"
    )
    assert warnings(load(text), 60_000) == []
    for name in BUNDLED:
        assert warnings(load_settings(name), 10_000) == []


# The initializer of all layers.


def test_initializer_is_that_of_all_layers_that_name_none(load: Load) -> None:
    text = (
        "initializer: {kind: normal, std: 0.5}\n"
        "network: [{affine: 9}, relu, {affine: {units: 8, initializer: zeros}}, {affine: }]"
    )
    text = text.replace("{affine: }", "{affine: {units: 10}}")
    expected = (
        affine(9, kind="normal", std=0.5),
        Choice("relu"),
        affine(8, kind="zeros"),
        affine(10, kind="normal", std=0.5),
    )
    settings = load(text)
    assert settings.network == expected
    assert load(to_yaml(settings)) == settings
    assert load(text, ("initializer", "xavier_normal")).network[0] == affine(
        9, kind="xavier_normal"
    )
    assert load(text, ("initializer.std", "2")).network[3] == affine(10, kind="normal", std=2.0)


def test_initializer_that_is_wrong_is_refused_once(refusal: Callable[..., str]) -> None:
    message = refusal("network: [{affine: 9}, {affine: 10}]\ninitializer: he")
    assert message.startswith("a.yaml:2:14: 'he' is no initializer; did you mean he_normal?")
    assert message.count("initializer;") == 1


def test_initializer_that_no_layer_takes_is_refused(
    load: Load, refusal: Callable[..., str]
) -> None:
    resolved = to_yaml(load("network: [{affine: 10}]"))
    message = refusal(resolved, ("initializer", "zeros"))
    assert message.startswith("--set initializer: initializer has no layer to go to: each")


# Where a config comes from.


def test_bundled_config_is_found_by_name_where_no_file_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()  # a folder is no config file
    assert load_settings("deep").name == "deep"
    (tmp_path / "linear").write_text("network: [{affine: 3}]")
    assert load_settings("linear").network == (affine(3),)
    with pytest.raises(ConfigError, match=r"no config file 'depe'.*did you mean deep"):
        load_settings("depe")
    with pytest.raises(ConfigError, match="no such file"):
        load_settings("./quickstart")


def test_standard_input_is_read_for_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(b"network: [{affine: 10}]")))
    assert load_settings("-").name == "stdin"
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(b"network: [x]")))
    with pytest.raises(ConfigError, match=r"^<stdin>:1:11: 'x' is no layer"):
        load_settings("-")


def test_closed_standard_input_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(ConfigError, match="standard input is closed"):
        load_settings("-")


@pytest.mark.parametrize("path", ["./images", "../images", "images/"])
def test_dataset_path_starts_from_the_configs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    folder = tmp_path / "configs" / "inner"
    folder.mkdir(parents=True)
    (folder / "a.yaml").write_text(f"network: [{{affine: 10}}]\ndata: {{dataset: {path}}}")
    monkeypatch.chdir(tmp_path)
    expected = os.path.realpath(folder / path)
    assert load_settings("configs/inner/a.yaml").data.dataset == expected
    assert load_settings(str(folder / "a.yaml")).data.dataset == expected


def test_dataset_path_of_an_override_starts_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings("deep", [("data.dataset", "./images")])
    assert settings.data.dataset == os.path.realpath(tmp_path / "images")


def test_absolute_and_home_paths_of_a_dataset_are_kept(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    for written, read in {"/a/../b": "/a/../b", "~/b": "/home/ada/b"}.items():
        settings = load(f"network: [{{affine: 10}}]\ndata: {{dataset: {written}}}")
        assert settings.data.dataset == read


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_dataset_below_a_folder_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    folder.mkdir()
    (folder / "a.yaml").write_text("network: [{affine: 10}]\ndata: {dataset: ./b}")
    with pytest.raises(ConfigError, match="must be a path that can be written in UTF-8") as caught:
        load_settings(str(folder / "a.yaml"))
    assert str(caught.value).replace("\n", "").isprintable()
    (folder / "a.yaml").write_text("network: [{affine: 10}]")
    assert load_settings(str(folder / "a.yaml")).name == "a"


# Round trips.


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_config_survives_the_round_trips(load: Load, name: str) -> None:
    settings = load_settings(name)
    assert settings.name == name
    assert load(to_yaml(settings)) == settings
    assert settings_from_dict(to_dict(settings)) == settings
    described = describe(settings.data.dataset)
    assert described.classes
    check_shapes(settings, described.inputs, described.classes)


@pytest.mark.parametrize("config", bundled_configs(), ids=BUNDLED)
def test_bundled_config_says_in_two_lines_what_it_shows(config: Any) -> None:
    lines = config.path.read_text().splitlines()
    assert [line.startswith("# ") for line in lines[:3]] == [True, True, False]
    assert config.description == f"{lines[0][2:]} {lines[1][2:]}"
    assert config.description.endswith(".")


def test_bundled_configs_are_those_of_the_contract() -> None:
    lessons = {"quickstart", "two-layer", "sigmoid-mse", "deep", "overfit", "overfit-cured"}
    assert {*lessons, "fast", "linear", "tiny"} <= set(BUNDLED)


@pytest.mark.parametrize("name", ["1e3", "010", "no", "null", "0x1f", ".5", "-", "true", "1_0"])
def test_name_that_looks_like_a_value_survives_as_text(load: Load, name: str) -> None:
    settings = load("network: [{affine: 10}]", ("name", f"'{name}'"))
    assert load(to_yaml(settings)) == replace(settings, name=name)


@pytest.mark.parametrize(
    "name", ["a b", "a: b #", "数字 é", "a\nb", "'\"", "\U0001f600", "x y " * 300]
)
def test_any_dataset_path_survives_as_text(load: Load, name: str) -> None:
    quoted = json.dumps(f"/{name}", ensure_ascii=False)
    settings = load(f"network: [{{affine: 10}}]\ndata: {{dataset: {quoted}}}")
    assert settings.data.dataset == f"/{name}"
    assert load(to_yaml(settings)) == settings
    assert to_yaml(settings).isascii()


def test_resolved_config_has_a_layer_a_line() -> None:
    settings = load_settings("sigmoid-mse")
    assert "- affine: {units: 50, initializer: xavier_normal}\n- sigmoid\n" in to_yaml(settings)


def test_settings_from_dict_believes_nothing(load: Load) -> None:
    plain = to_dict(load("network: [{affine: 10}]"))
    deep: Any = []
    for _ in range(10_000):
        deep = [deep]
    changes: list[dict[str, Any]] = [
        {"network": []},
        {"seed": 10**4000},
        {"optimizer": {"kind": "sgd", "learning_rate": 10**4000}},
        {"optimizer": {"kind": ["sgd"]}},
        {"training": {"clip_norm": float("nan")}},
        {"network": deep},
        {"data": {1: 2}},
        {"name": None},
        {"name": "\ud800"},
        {"data": {"dataset": "./\ud800"}},
        {"extra": object()},
    ]
    for change in changes:
        with pytest.raises(ConfigError):
            settings_from_dict({**plain, **change})
    with pytest.raises(ConfigError, match="name must be"):
        settings_from_dict({"network": plain["network"]})


def test_settings_are_equal_by_content_wherever_they_come_from(load: Load) -> None:
    one = load("network: [{affine: 10}]")
    other = load("# a comment\n\n\nnetwork:\n  - affine:\n      units: 10\n")
    assert one == other
    assert "places" not in repr(one)
    assert to_yaml(one) == to_yaml(other)


def test_differences_name_path_and_both_values(load: Load) -> None:
    before = load("network: [{affine: 20}, relu, {affine: 10}]")
    after = load(
        "name: b\nnetwork: [{affine: 30}, tanh]\n"
        "optimizer: {kind: momentum, learning_rate: 0.05}\ntraining: {clip_norm: 2}"
    )
    assert differences(before, after) == [
        "name: a -> b",
        "network.0.affine.units: 20 -> 30",
        "network.1.relu: {} -> (none)",
        "network.2.affine.units: 10 -> (none)",
        "network.2.affine.initializer.kind: he_normal -> (none)",
        "optimizer.kind: sgd -> momentum",
        "optimizer.learning_rate: 0.1 -> 0.05",
        "training.clip_norm: null -> 2.0",
        "network.1.tanh: (none) -> {}",
        "optimizer.momentum: (none) -> 0.9",
    ]
    assert differences(before, before) == []


# Building.


@pytest.mark.parametrize(
    ("registry", "kind"),
    [
        (registry, kind)
        for registry in (LAYERS, LOSSES, OPTIMIZERS, SCHEDULES, INITIALIZERS)
        for kind in registry
    ],
)
def test_every_registry_entry_can_be_written_and_built(
    load: Load, registry: dict[str, type], kind: str
) -> None:
    required = {"affine": "affine: 9", "dropout": "dropout: 0.5"}
    places: list[tuple[dict[str, type], str, Callable[[Settings], Choice]]] = [
        (LAYERS, f"network: [{{{required.get(kind, f'{kind}: ')}}}]", lambda s: s.network[0]),
        (LOSSES, f"network: [relu]\nloss: {kind}", lambda s: s.loss),
        (OPTIMIZERS, f"network: [relu]\noptimizer: {kind}", lambda s: s.optimizer),
        (SCHEDULES, f"network: [relu]\nschedule: {kind}", lambda s: s.schedule),
        (
            INITIALIZERS,
            f"network: [{{affine: {{units: 9, initializer: {kind}}}}}]",
            lambda s: Choice(**{"kind": s.network[0].options["initializer"]["kind"]}),
        ),
    ]
    ((text, choose),) = ((text, choose) for r, text, choose in places if r is registry)
    choice = choose(load(text))
    assert choice.kind == kind
    assert type(build(registry, choice)) is registry[kind]


def test_build_gives_options_and_makes_the_initializer(load: Load) -> None:
    first, second, third = load(
        "network: [{affine: {units: 9, initializer: {kind: normal, std: 0.5}}},"
        "{affine: {units: 8, initializer: xavier_uniform}}, {affine: 7}]"
    ).network
    layer = build(LAYERS, first)
    assert isinstance(layer, Affine)
    assert (layer.units, layer.initializer) == (9, Normal(std=0.5))
    assert build(LAYERS, second).initializer == XavierUniform()  # type: ignore[attr-defined]
    assert build(LAYERS, third).initializer == HeNormal()  # type: ignore[attr-defined]


# Shapes.


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            "[{affine: 50}, relu, {affine: 12}]",
            "a.yaml:1:40: the network has 12 outputs, but the data set has 10 classes: "
            "this must be 10",
        ),
        (
            "[{affine: {initializer: zeros, units: 12}}, batch_norm, dropout: 0.5]",
            "a.yaml:1:48: the network has 12 outputs, but",
        ),
        (
            "[batch_norm, relu]",
            "a.yaml:1:23: the network has 784 outputs, but the data set has 10 classes; "
            "end it with `- affine: 10`",
        ),
        ("[relu, tanh]", "a.yaml:1:10: network has no layer with parameters"),
        (
            "[{affine: 1000000}]",
            "a.yaml:1:20: network.0 brings the network to 785,000,000 parameters",
        ),
        ("[{affine: 9223372036854775807}, {affine: 9223372036854775807}]", "a.yaml:1:20: "),
    ],
)
def test_network_that_does_not_fit_is_placed(load: Load, network: str, message: str) -> None:
    settings = load(f"network: {network}")
    with pytest.raises(ConfigError) as caught:
        check_shapes(settings, 784, 10)
    assert str(caught.value).startswith(message)


def test_network_that_an_override_broke_is_placed_there(load: Load) -> None:
    settings = load("network: [{affine: 10}]", ("network.0.affine", "12"))
    with pytest.raises(ConfigError, match=r"^--set network\.0\.affine: the network has 12 outputs"):
        check_shapes(settings, 784, 10)


def test_network_without_a_text_is_refused_without_a_place(load: Load) -> None:
    settings = settings_from_dict(to_dict(load("network: [{affine: 12}]")))
    with pytest.raises(ConfigError, match=r"^the network has 12 outputs") as caught:
        check_shapes(settings, 784, 10)
    assert "\n" not in str(caught.value)


def test_number_of_classes_may_be_unknown(load: Load) -> None:
    assert check_shapes(load("network: [{affine: 12}, relu]"), 784, None) == 12
