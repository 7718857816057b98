"""`--set`: any key, on the normalised form."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from nnctl.config import (
    Settings,
    bundled_configs,
    check_shapes,
    differences,
    leaves,
    load_settings,
    to_dict,
    to_yaml,
)
from nnctl.errors import ConfigError

Load = Callable[..., Settings]
Refusal = Callable[..., str]

TEXT = """\
network:
  - affine: 50
  - leaky_relu
  - affine: {units: 10, initializer: {kind: normal, std: 0.5}}
optimizer: {kind: momentum, learning_rate: 0.5, momentum: 0.8, weight_decay: 0.1}
training: {epochs: 3}
"""


@pytest.mark.parametrize(
    ("key", "value", "change"),
    [
        ("seed", "7", "seed: 0 -> 7"),
        ("name", "b", "name: a -> b"),
        ("name", "2024", "name: a -> 2024"),
        ("name", "1e3", "name: a -> 1e3"),
        ("data.validation", "0", "data.validation: 5000 -> 0"),
        ("data.train_size", "30", "data.train_size: null -> 30"),
        ("network.0.affine", "100", "network.0.affine.units: 50 -> 100"),
        ("network.0.affine.units", "100", "network.0.affine.units: 50 -> 100"),
        ("network.1.leaky_relu", "0.2", "network.1.leaky_relu.slope: 0.01 -> 0.2"),
        ("network.1.leaky_relu.slope", "0.2", "network.1.leaky_relu.slope: 0.01 -> 0.2"),
        (
            "network.2.affine.initializer.std",
            "1",
            "network.2.affine.initializer.std: 0.5 -> 1.0",
        ),
        ("optimizer.learning_rate", "1e-3", "optimizer.learning_rate: 0.5 -> 0.001"),
        ("loss.label_smoothing", "0.1", "loss.label_smoothing: 0.0 -> 0.1"),
        ("schedule.warmup", "0.5", "schedule.warmup: 0.0 -> 0.5"),
        ("training.clip_norm", "1", "training.clip_norm: null -> 1.0"),
    ],
)
def test_override_changes_one_thing(load: Load, key: str, value: str, change: str) -> None:
    assert differences(load(TEXT), load(TEXT, (key, value))) == [change]


def test_override_replaces_whole_entries(load: Load) -> None:
    settings = load(
        TEXT,
        ("network.1", "tanh"),
        ("network.0", "{dropout: 0.5}"),
        ("optimizer", "{kind: adam, beta1: 0.5}"),
        ("training", "{batch_size: 7}"),
    )
    assert [layer.kind for layer in settings.network] == ["dropout", "tanh", "affine"]
    assert settings.optimizer.options["beta1"] == 0.5
    assert (settings.training.epochs, settings.training.batch_size) == (16, 7)
    assert len(load(TEXT, ("network", "[{affine: 10}]")).network) == 1


def test_override_makes_the_mappings_on_its_way(load: Load) -> None:
    network = "network: [{affine: 10}]"
    settings = load(network, ("training.early_stopping.patience", "3"))
    assert settings.training.early_stopping is not None
    assert settings.training.early_stopping.patience == 3
    assert load(f"{network}\ntraining:", ("training.epochs", "3")).training.epochs == 3
    std = ("network.0.affine.initializer.std", "0.5")
    kind = ("network.0.affine.initializer.kind", "normal")
    initializer = load(network, kind, std).network[0].options["initializer"]
    assert initializer == {"kind": "normal", "std": 0.5}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer.kind", "adam"),
        ("training.epochs", "3"),
        ("data.split_seed", "3"),
        ("schedule.warmup", "3"),
    ],
)
def test_override_fills_what_the_file_left_empty(load: Load, key: str, value: str) -> None:
    network = "network: [{affine: 10}]"
    empty = f"{key.split('.')[0]}:"
    assert load(f"{network}\n{empty}", (key, value)) == load(network, (key, value))


def test_override_is_blamed_for_what_lacks_beside_it(refusal: Refusal) -> None:
    text = "network: [{affine: 10}]\ntraining: {early_stopping: null}"
    told = refusal(text, ("training.early_stopping.min_delta", "1"))
    assert told.startswith("--set training.early_stopping.min_delta: ")
    assert "training.early_stopping needs patience" in told


def test_override_can_give_what_the_file_lacks_or_has_wrong(load: Load) -> None:
    assert load("seed: 1", ("network", "[{affine: 10}]")).seed == 1
    assert load("", ("network", "[{affine: 10}]")).seed == 0
    assert load("network: [relu]\nseed: x", ("seed", "3")).seed == 3


def test_override_of_a_kind_drops_the_old_kinds_options(load: Load) -> None:
    optimizer = load(TEXT, ("optimizer.kind", "adam")).optimizer
    assert optimizer == load("network: [relu]\noptimizer: adam").optimizer
    layer = load(TEXT, ("network.2.affine.initializer.kind", "zeros")).network[2]
    assert layer.options == {"units": 10, "initializer": {"kind": "zeros"}}


def test_override_of_a_kind_by_itself_keeps_the_options(load: Load) -> None:
    assert load(TEXT, ("optimizer.kind", "momentum")) == load(TEXT)


@pytest.mark.parametrize("order", [1, -1])
def test_override_of_a_kind_keeps_what_else_is_overridden(load: Load, order: int) -> None:
    pairs = [("optimizer.kind", "adam"), ("optimizer.learning_rate", "0.3")]
    optimizer = load(TEXT, *pairs[::order]).optimizer
    assert (optimizer.kind, optimizer.options["learning_rate"]) == ("adam", 0.3)


def test_last_override_of_a_key_wins(load: Load) -> None:
    assert load(TEXT, ("seed", "1"), ("seed", "2")).seed == 2


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("training.epochs", "fast", "must be a whole number, not the word 'fast'\n    fast\n    ^"),
        (
            "training.epoch",
            "3",
            "unknown key 'epoch' in training; did you mean epochs?"
            "\n    training.epoch=3\n             ^",
        ),
        ("trainin.epochs", "3", "did you mean training?\n    trainin.epochs=3\n    ^"),
        ("", "3", "unknown key '' in the config"),
        ("data..x", "3", "unknown key '' in data"),
        ("seed.x", "3", "seed must be a whole number, not a mapping"),
        ("training.epochs.x", "3", "training.epochs is 3: there is no 'x' in it"),
        ("network.3", "relu", "network has no entry '3'; there are 3, counted from 0"),
        ("network.-1", "relu", "network has no entry '-1'"),
        ("network.one", "relu", "network has no entry 'one'"),
        ("network.0.relu", "", "network.0 is affine already; --set network.0=LAYER replaces it"),
        ("network.0.units", "3", "'units' is an option of affine: network.0.affine.units"),
        ("optimizer.type", "adam", "unknown key 'type' in momentum; did you mean kind?"),
        ("epochs", "3", "unknown key 'epochs' in the config; did you mean training.epochs?"),
        ("optimizer.adam.beta1", "1", "unknown key 'adam' in momentum"),
        ("network.1", "dense", "'dense' is no layer; did you mean affine?"),
        ("network.0.affine.unit", "3", "unknown key 'unit' in network.0.affine"),
        ("network.1.leaky_relu", "-1", "network.1.leaky_relu.slope must be at least 0, not -1"),
        ("optimizer.beta1", "0.5", "unknown key 'beta1' in momentum"),
        ("optimizer.kind", "adm", "'adm' is no optimizer; did you mean adam?\n    adm\n    ^"),
        ("data.dataset", "minst", "'minst' is no data set"),
        ("seed", "[1", "while parsing a flow sequence"),
        ("seed", "1\n---\n2", "a second document"),
        ("seed", "&a 1", "anchors are not allowed"),
        ("seed", "1\x00", "character U+0000 is not allowed"),
        ("name", "a b", "name must be 1 to 100 letters"),
        ("data", "{dataset: 3, x: a/b}", "data.dataset must be a word, not 3; put it in quotes"),
        ("name", "\udcff", "character U+DCFF is not allowed"),
        ("training.early_stopping.min_delta", "1", "training.early_stopping needs patience"),
    ],
)
def test_wrong_override_is_named(refusal: Refusal, key: str, value: str, message: str) -> None:
    told = refusal(TEXT, (key, value))
    assert told.startswith(f"--set {key}: ")
    assert message in told


@pytest.mark.parametrize(
    ("key", "value", "kinds"),
    [
        ("network+", "relu", "affine leaky_relu affine relu"),
        ("network+", "[{affine: 20}, relu]", "affine leaky_relu affine affine relu"),
        ("network.0+", "{dropout: 0.5}", "dropout affine leaky_relu affine"),
        ("network.2+", "[{affine: 20}, tanh]", "affine leaky_relu affine tanh affine"),
        ("network.3+", "relu", "affine leaky_relu affine relu"),
        ("network-", "1", "affine affine"),
        ("network-", "[0, 1]", "affine"),
    ],
)
def test_layers_are_added_and_removed(load: Load, key: str, value: str, kinds: str) -> None:
    settings = load(TEXT, (key, value))
    assert [layer.kind for layer in settings.network] == kinds.split()
    assert load(to_yaml(settings)) == settings


def test_layers_are_numbered_anew_after_each_change(load: Load) -> None:
    settings = load(
        TEXT,
        ("network.1+", "{affine: 30}"),
        ("network.1.affine.units", "31"),
        ("network-", "[0, 2]"),
        ("network.1.affine.units", "11"),
    )
    assert [layer.options["units"] for layer in settings.network] == [31, 11]
    with pytest.raises(ConfigError, match=r"^a\.yaml:4:21: the network has 10 outputs"):
        check_shapes(load(TEXT, ("network.0+", "tanh")), 784, 9)
    with pytest.raises(ConfigError, match=r"^a\.yaml:4:21: the network has 10 outputs"):
        check_shapes(load(TEXT, ("network-", "1")), 784, 9)


def test_layers_are_added_where_there_are_none(load: Load) -> None:
    assert len(load("seed: 1", ("network+", "[relu, {affine: 10}]")).network) == 2
    assert len(load("network:", ("network+", "{affine: 10}")).network) == 1


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("network+", "reluu", "'reluu' is no layer; did you mean relu?\n    reluu\n    ^"),
        ("network+", "[relu, {affine: 0}]", "network.4.affine.units must be at least 1, not 0"),
        ("network+", "", "network.3 must be one layer, not empty"),
        ("network.4+", "relu", "network has no entry '4'; there are 3, counted from 0"),
        ("network.x+", "relu", "network has no entry 'x'"),
        ("netwrk+", "relu", "unknown key 'netwrk' in the config; did you mean network?"),
        ("training.epochs+", "3", "training.epochs is 3: only a list has entries to add or rem"),
        ("network-", "3", "network has no entry '3'; there are 3, counted from 0\n    3\n    ^"),
        ("network-", "-1", "network has no entry '-1'"),
        ("network-", "relu", "what is removed must be the number of an entry, not the word 'relu'"),
        ("network-", "[0, 1, 2]", "network must have 1 to 500 layers, not 0"),
        ("network.0-", "1", "network.0 is a mapping: only a list has entries"),
        ("+", "1", "unknown key '+' in the config"),
    ],
)
def test_wrong_addition_or_removal_is_named_as_elsewhere(
    refusal: Refusal, key: str, value: str, message: str
) -> None:
    told = refusal(TEXT, (key, value))
    assert told.startswith(f"--set {key}: ")
    assert message in told


def test_override_below_what_is_no_list_is_named(refusal: Refusal) -> None:
    told = refusal("seed: 1", ("network.0.affine", "3"))
    assert told.startswith("--set network.0.affine: network must be a list of layers, not a map")


def test_override_in_an_empty_list_is_told_that_it_is_empty(refusal: Refusal) -> None:
    told = refusal("network: []", ("network.0", "relu"))
    assert "--set network.0: network has no entry '0'; there are 0, counted from 0" in told


def test_errors_of_overrides_follow_those_of_the_file(refusal: Refusal) -> None:
    told = refusal("network: [x]\nsede: 1", ("data.validation", "-1"), ("seed", "y"))
    starts = [line.split(": ")[0] for line in told.splitlines() if not line.startswith(" ")]
    assert starts == ["a.yaml:1:11", "a.yaml:2:1", "--set seed", "--set data.validation"]


@pytest.mark.parametrize("config", [config.name for config in bundled_configs()])
def test_every_leaf_of_the_normal_form_can_be_overridden(config: str) -> None:
    settings = load_settings(config)
    for path, value in leaves(to_dict(settings)):
        assert load_settings(config, [(path, json.dumps(value))]) == settings
