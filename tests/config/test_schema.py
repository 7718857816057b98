"""The JSON Schema and the loader agree; whatever is loaded, nothing but a config or an error.

NNCTL_TEST_CYCLES=200 tries 1,000 examples of each instead of 50.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from nnctl.config import (
    BundledConfig,
    Settings,
    bundled_configs,
    check_shapes,
    json_schema,
    load_settings,
    settings_from_dict,
    to_dict,
    to_yaml,
)
from nnctl.datasets.catalogue import CATALOGUE
from nnctl.errors import ConfigError
from nnctl.nn.initializers import INITIALIZERS
from nnctl.nn.layers import LAYERS
from nnctl.nn.losses import LOSSES
from nnctl.nn.optimizers import OPTIMIZERS
from nnctl.nn.schedules import SCHEDULES

Plain = st.SearchStrategy[Any]

VALIDATOR = jsonschema.Draft202012Validator(json_schema())
REGISTRIES: list[Mapping[str, type]] = [LAYERS, LOSSES, OPTIMIZERS, SCHEDULES, INITIALIZERS]

fuzzing = settings(
    max_examples=5 * int(os.environ.get("NNCTL_TEST_CYCLES") or 10),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


# Plain values that are configs, or nearly.

leaves: Plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 12),
    st.integers(-(2**70), 2**70),
    st.floats(-0.5, 1.5),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "relu", "a/b", "no", "1e3", "x y", "..", "mnist", "sgd", "zeros", "kind"]),
    st.just([]),
    st.just({}),
    st.just({"kind": "normal"}),
)
counts: Plain = st.integers(1, 2**63 - 1)
wholes: Plain = st.integers(0, 2**63 - 1)
rates: Plain = st.floats(0.001, 0.999)


class Configs:
    """Makes configs; with `odds`, one in so many values and mappings is wrong."""

    def __init__(self, odds: int | None = None) -> None:
        self.chance = st.integers(0, odds - 1) if odds else st.just(1)

    def maybe(self, right: Plain) -> Plain:
        return self.chance.flatmap(lambda chance: right if chance else leaves)

    def mappings(self, required: dict[str, Plain], optional: dict[str, Plain]) -> Plain:
        @st.composite
        def mapping(draw: st.DrawFn) -> Any:
            given = draw(st.lists(st.sampled_from([*optional]), unique=True)) if optional else []
            content = required | {name: optional[name] for name in given}
            if content and not draw(self.chance):
                del content[draw(st.sampled_from([*content]))]
            if not draw(self.chance):
                content = content | {draw(st.sampled_from(["kind", "units", "extra"])): leaves}
            return {name: draw(self.maybe(value)) for name, value in content.items()}

        return mapping()

    def options(self, kind: type) -> Plain:
        """Return the options of an entry: read from its class, not by the rules under test."""
        required: dict[str, Plain] = {}
        optional: dict[str, Plain] = {}
        for option in fields(kind):
            needed = option.default is MISSING and option.default_factory is MISSING
            value = counts if option.type == "Count" else rates
            if option.name == "initializer":
                value = self.choices(INITIALIZERS)
            (required if needed else optional)[option.name] = value
        return self.mappings(required, optional)

    def choices(self, registry: Mapping[str, type]) -> Plain:
        names = st.sampled_from([*registry])
        return names | names.flatmap(
            lambda name: self.options(registry[name]).flatmap(
                lambda given: st.sampled_from([{"kind": name, **given}, {name: given}])
            )
        )

    def layers(self) -> Plain:
        short = [
            st.sampled_from(["relu", "leaky_relu", "sigmoid", "tanh", "gelu", "batch_norm"]),
            counts.map(lambda units: {"affine": units}),
            rates.map(lambda rate: {"dropout": rate}),
            rates.map(lambda slope: {"leaky_relu": slope}),
            self.maybe(st.just("relu")).flatmap(
                lambda value: st.sampled_from([*LAYERS]).map(
                    lambda name: value if value == "relu" else {name: value}
                )
            ),
        ]
        long = st.sampled_from([*LAYERS]).flatmap(
            lambda name: self.options(LAYERS[name]).map(lambda given: {name: given})
        )
        return st.one_of(*short, long)

    def configs(self) -> Plain:
        elastic = self.mappings({}, {"strength": rates, "smoothness": st.floats(0.5, 64)})
        amounts = dict.fromkeys(("shift", "rotate", "scale", "shear"), rates)
        data = {
            "dataset": st.sampled_from([*CATALOGUE, "./a", "/b"]),
            "validation": wholes | rates | st.none(),
            "train_size": st.none() | counts,
            "split_seed": wholes,
            "augment": st.none() | self.mappings({}, amounts | {"elastic": elastic}),
        }
        stopping = self.mappings({"patience": counts}, {"min_delta": rates})
        training = {
            "epochs": counts,
            "batch_size": counts,
            "early_stopping": st.none() | stopping,
            "clip_norm": st.none() | rates,
            "checkpoint_seconds": rates,
            "log_steps": st.booleans(),
        }
        return self.mappings(
            {"network": st.lists(self.maybe(self.layers()), min_size=1, max_size=4)},
            {
                "name": st.sampled_from(["a", "a-b_c.1", "010", "no"]),
                "seed": wholes,
                "data": self.mappings({}, data),
                "initializer": self.choices(INITIALIZERS),
                "loss": self.choices(LOSSES),
                "optimizer": self.choices(OPTIMIZERS),
                "schedule": self.choices(SCHEDULES),
                "training": self.mappings({}, training),
            },
        )


right_configs, wrong_configs = Configs().configs(), Configs(odds=40).configs()


def attempt(load: Callable[[], Settings]) -> tuple[Settings | None, str]:
    """Return the settings, or the message of the refusal: nothing else may happen."""
    try:
        return load(), ""
    except ConfigError as error:
        return None, str(error)


def loaded(path: Path, text: str | bytes) -> Settings | None:
    """Return the settings of a text, or None where it is refused with a place."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    result, message = attempt(lambda: load_settings(str(path)))
    if result is None:
        assert message.startswith(f"{path}:")
        assert message.replace("\n", "").isprintable()
    return result


# The schema.


def test_schema_is_a_valid_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("config", bundled_configs(), ids=lambda config: str(config.name))
def test_schema_accepts_bundled_and_resolved_configs(config: BundledConfig) -> None:
    VALIDATOR.validate(yaml.safe_load(config.path.read_text()))
    VALIDATOR.validate(to_dict(load_settings(config.name)))


def test_schema_knows_every_entry_of_every_registry() -> None:
    text = json.dumps(json_schema())
    for registry in REGISTRIES:
        assert [kind for kind in registry if f'"{kind}"' not in text] == []


def test_schema_tells_defaults_and_describes_each_key() -> None:
    schema = json_schema()
    training = schema["properties"]["training"]["properties"]
    assert training["epochs"]["default"] == 16
    assert schema["properties"]["optimizer"]["default"] == "sgd"
    for part in (schema, *(schema["properties"][name] for name in ("data", "training"))):
        assert all(key["description"].endswith(".") for key in part["properties"].values())


@fuzzing
@example({"network": ["relu"], "training": {"epochs": 3.0}})
@example({"network": ["relu"], "training": {"epochs": True}})
@example({"network": ["relu"], "training": {"epochs": 2**63}})
@example({"network": ["relu"], "data": None, "training": None})
@example({"network": ["relu"], "data": {"augment": {"elastic": None}}})
@example({"network": ["relu"], "optimizer": None})
@example({"network": ["relu"], "optimizer": {"learning_rate": 1}})
@example({"network": ["relu"], "optimizer": {"momentum": 0.5}})
@example({"network": ["relu"], "optimizer": {"adam": None}})
@example({"network": ["relu"], "optimizer": {"adam": {"kind": "adam"}}})
@example({"network": ["relu"], "optimizer": {"adam": {}, "beta1": 0.5}})
@example({"network": ["relu"], "optimizer": {"adam": 0.5}})
@example({"network": [{"affine": {"units": 1, "initializer": {}}}]})
@example({"network": [{"affine": {"units": 1, "initializer": {"std": 1}}}]})
@example({"network": [{"batch_norm": 0.9}]})
@example({"network": [{"affine": None}]})
@example({"network": [{"relu": None, "tanh": None}]})
@example({"network": ["relu"] * 501})
@example({"network": ["relu"], "name": "a" * 101})
@given(right_configs | wrong_configs)
def test_schema_accepts_what_the_loader_accepts(
    tmp_path_factory: pytest.TempPathFactory, plain: Any
) -> None:
    result = loaded(tmp_path_factory.getbasetemp() / "schema.yaml", json.dumps(plain))
    assume(result or not contradicts_itself(plain))  # which no schema can say
    assert VALIDATOR.is_valid(plain) == (result is not None)


def contradicts_itself(plain: Any) -> bool:
    """Return whether a mapping has what may not go together, whatever else is wrong with it."""
    data, training, network = (plain.get(key) for key in ("data", "training", "network"))
    if "initializer" in plain and isinstance(network, list):
        layers = [layer for layer in network if isinstance(layer, dict)]
        options = [layer["affine"] for layer in layers if "affine" in layer]
        if all(isinstance(given, dict) and "initializer" in given for given in options):
            return True  # no layer takes it
    return (
        isinstance(data, dict)
        and isinstance(training, dict)
        and data.get("validation") == 0
        and training.get("early_stopping") is not None
    )


@fuzzing
@given(right_configs)
def test_loaded_config_survives_the_round_trips(
    tmp_path_factory: pytest.TempPathFactory, plain: Any
) -> None:
    assume(not contradicts_itself(plain))
    path = tmp_path_factory.getbasetemp() / "round-trip.yaml"
    first = loaded(path, json.dumps(plain))
    assert first is not None
    assert loaded(path, to_yaml(first)) == first
    assert settings_from_dict(json.loads(json.dumps(to_dict(first)))) == first
    VALIDATOR.validate(to_dict(first))


@fuzzing
@given(right_configs | wrong_configs)
def test_plain_values_mean_what_their_text_means(
    tmp_path_factory: pytest.TempPathFactory, plain: Any
) -> None:
    plain = {"name": "a", **plain}
    result, _ = attempt(lambda: settings_from_dict(plain))
    text = loaded(tmp_path_factory.getbasetemp() / "a.yaml", json.dumps(plain))
    assert (result is None) == (text is None)


@fuzzing
@given(right_configs)
def test_loaded_config_fits_the_data_or_says_where_not(
    tmp_path_factory: pytest.TempPathFactory, plain: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "shapes.yaml"
    settings = loaded(path, json.dumps(plain))
    assume(settings is not None)
    assert settings is not None

    def checked() -> Settings:
        check_shapes(settings, 784, 10)
        return settings

    fits, message = attempt(checked)
    assert fits or message.startswith(f"{path}:1:")


# Any text.

YAML_PIECES = [
    *"[]{}:,-?&*!|>'\"#%@~ \t\n\r",
    "\x00",
    "\x85",
    "\u2028",
    "\ufeff",
    "---",
    "...",
    "<<",
]
YAML_PIECES += [
    "network",
    "relu",
    "affine",
    ": ",
    "- ",
    "\n  ",
    "kind",
    "1e999",
    ".nan",
    "0x",
    "!!",
]
SEEDS = [config.path.read_text() for config in bundled_configs()]


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """Draw a bundled config with some pieces cut out, put in, or put elsewhere."""
    text = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(text)))
        stop = start + draw(st.integers(0, 20))
        piece = draw(st.sampled_from(YAML_PIECES) | st.just(text[start:stop]))
        text = text[:start] + piece + text[stop if draw(st.booleans()) else start :]
    return text


@fuzzing
@given(st.binary() | damaged() | st.lists(st.sampled_from(YAML_PIECES)).map("".join) | st.text())
def test_any_text_is_a_config_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, text: str | bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    result = loaded(path, text if isinstance(text, bytes) else text.encode("utf-8", "replace"))
    assert result is None or loaded(path, to_yaml(result)) is not None


@fuzzing
@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(["network", "0", "affine", "units", "kind", "x", "", "0+"]))
            .map(".".join)
            .filter(bool)
            | st.sampled_from(["seed", "optimizer.kind", "network+", "network.1+", "network-"])
            | st.text(),
            st.lists(st.sampled_from(YAML_PIECES)).map("".join) | st.text(),
        ),
        max_size=3,
    )
)
def test_any_overrides_give_a_config_or_an_error(overrides: list[tuple[str, str]]) -> None:
    result, message = attempt(lambda: load_settings("two-layer", overrides))
    assert result or message.startswith("--set ")
    assert message.replace("\n", "").isprintable()
