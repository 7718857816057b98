"""The search space: what may be written, what is told of the rest, and what is drawn from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnctl.config import load_settings
from nnctl.errors import ConfigError
from nnctl.sweeps.settings import Search, as_override, load_search
from nnctl.sweeps.space import Choices, NumberRange

HEAD = "config: quickstart\nparameters:\n"


@pytest.fixture
def search(tmp_path: Path) -> Callable[..., Search]:
    """Return the search of a sweep file's text; `varied` as typed."""

    def load(text: str = "", *, name: str = "my", **varied: str) -> Search:
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        keys = {key.replace("__", "."): value for key, value in varied.items()}
        return load_search(
            str(path) if text else None, {} if text else {"config": "quickstart"}, keys
        )

    return load


def refused(search: Callable[..., Search], text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        search(text)
    return str(caught.value)


def test_sweep_file_is_read_with_its_defaults(search: Callable[..., Search]) -> None:
    found = search(HEAD + "  optimizer.learning_rate: {min: 1e-3, max: 1, log: true}\n")
    assert (found.name, found.method, found.trials, found.parallel) == ("my", "random", 20, 2)
    assert (found.seeds, found.seed, found.objective) == (1, 0, "validation_loss")
    assert found.space == {"optimizer.learning_rate": NumberRange(1e-3, 1.0, None, True, False)}
    assert found.base == load_settings("quickstart")


def test_kind_of_a_range_is_that_of_the_key(search: Callable[..., Search]) -> None:
    found = search(
        HEAD
        + "  network.0.affine.units: {min: 16, max: 100, step: 16}\n"
        + "  training.epochs: {min: 1, max: 4}\n"
        + "  optimizer.momentum: {min: 0, max: 0.5, step: 0.1}\n"
        + "  optimizer.weight_decay: {min: 0, max: 1}\n"
    ).space
    units, epochs, momentum, decay = found.values()
    assert [units.value(i) for i in range(units.size or 0)] == [16, 32, 48, 64, 80, 96]
    assert [epochs.value(i) for i in range(epochs.size or 0)] == [1, 2, 3, 4]
    assert [momentum.value(i) for i in range(6)] == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert decay == NumberRange(0.0, 1.0, None, False, False)


def test_resolved_sweep_gives_the_same_search_again(
    search: Callable[..., Search], tmp_path: Path
) -> None:
    found = search(
        "config: quickstart\nset: {training.epochs: 5, network.1: tanh}\nmethod: random\n"
        "trials: 7\nseeds: 2\nseed: 3\nobjective: validation_accuracy\nprune: {after: 2}\n"
        "parameters:\n  optimizer: [{kind: adam, learning_rate: 1e-3}, sgd]\n"
        "  network.0.affine.units: {min: 4, max: 9}\n"
    )
    again = search(found.to_yaml("quickstart"), name="again")
    assert again == found


@pytest.mark.parametrize(
    ("space", "place", "told"),
    [
        ("  optimizer.lr: [0.1, 1]", "3:13", "'lr'"),
        ("  optimizer.learning_rate: [0.1, fast]", "3:34", "must be a number"),
        ("  optimizer.learning_rate: [0.1, -1]", "3:34", "must be above 0"),
        ("  optimizer.learning_rate: {min: -1, max: 1}", "3:34", "must be above 0"),
        ("  optimizer.learning_rate: {min: 1, max: 0.1}", "3:42", "max must be above min, 1"),
        ("  optimizer.learning_rate: {min: 0, max: 1, log: true}", "3:34", "min must be above 0"),
        ("  optimizer.learning_rate: {min: 1e-3, log: true}", "3:28", "needs max"),
        ("  optimizer.learning_rate: {min: 1e-3, max: .inf}", "3:45", "must be a number"),
        ("  optimizer.learning_rate: [0.1, 1, 0.1]", "3:37", "the choice 0.1 twice"),
        ("  optimizer.learning_rate: []", "3:28", "has no choices"),
        ("  optimizer.learning_rate: 0.1", "3:28", "list of choices or a range"),
        ("  optimizer.kind: {min: 1, max: 2}", "3:25", "1 is no optimizer"),
        ("  network.0.affine.units: {min: 4, max: 8.5}", "3:41", "whole number"),
        ("  network.0.affine.units: {min: 4, max: 8, step: 0.5}", "3:50", "whole number"),
        ("  network.2.affine.units: [10, 12]", "3:32", "10 classes"),
        ("  data.validation: [1000, 0]", "3:27", "data.validation is 0"),
        ("  seed: [0, 1]", "3:3", "use `seeds: N`"),
        ("  network.7.relu: [1]", "3:11", "has no entry '7'"),
    ],
)
def test_what_is_wrong_with_a_space_is_shown_where_it_stands(
    search: Callable[..., Search], space: str, place: str, told: str
) -> None:
    message = refused(search, f"{HEAD}{space}\n")
    assert f"my.yaml:{place}: " in message
    assert told in message
    line, caret = message.splitlines()[1:3]
    assert line.strip() == space.strip()
    assert caret.strip() == "^"


@pytest.mark.parametrize(
    ("space", "told"),
    [
        (
            "{distribution: log_uniform_values, min: 1e-3, max: 1}",
            "write {min: 0.001, max: 1, log: true}",
        ),
        ("{low: 0.1, high: 1}", "write {min: 0.1, max: 1}"),
        ("{low: 0.1, high: 1, log: true}", "write {min: 0.1, max: 1, log: true}"),
        ("{space: loguniform, lower: 1e-3, upper: 1}", "write {min: 0.001, max: 1, log: true}"),
        ("{space: uniform, lower: 1, upper: 2, q: 0.5}", "write {min: 1, max: 2, step: 0.5}"),
        ("{values: [0.1, 1]}", "write the list of choices alone: [0.1, 1]"),
        ("{value: 0.1}", "belongs below `set:`"),
    ],
)
def test_spelling_of_another_tool_gets_the_right_one(
    search: Callable[..., Search], space: str, told: str
) -> None:
    assert told in refused(search, f"{HEAD}  optimizer.learning_rate: {space}\n")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("metric: accuracy", "'metric' is called objective here"),
        ("run_cap: 10", "'run_cap' is called trials here"),
        ("objective: test_accuracy", "nothing is ever chosen on the test set"),
        ("objective: validation_los", "did you mean validation_loss?"),
        ("method: tpe", "write bayes"),
        ("method: gird", "did you mean grid?"),
        ("trials: 3", "a grid tries each of its 2 points once"),
        ("trials: 0", "must be at least 1"),
        ("method: grid\ntrials: many", "must be a whole number"),
        ("prune: {after: 99}", "must be below training.epochs, 8"),
        ("prune: {after: 1}\nobjective: parameters", "can't be pruned by it"),
        ("tirals: 3", "did you mean trials?"),
    ],
)
def test_what_is_wrong_with_a_sweep_is_told(
    search: Callable[..., Search], line: str, told: str
) -> None:
    text = f"config: quickstart\n{line}\nparameters: {{optimizer.learning_rate: [0.1, 1]}}\n"
    assert told in refused(search, text)


def test_grid_over_a_range_without_a_step_is_refused(search: Callable[..., Search]) -> None:
    text = HEAD + "  optimizer.learning_rate: {min: 0.1, max: 1}\nmethod: grid\n"
    assert "a grid needs choices, or a range with a step" in refused(search, text)


def test_several_mistakes_are_told_together(search: Callable[..., Search]) -> None:
    text = HEAD + "  optimizer.learning_rate: [0.1, fast]\n  training.epochs: [0, 2]\n"
    message = refused(search, text)
    assert "my.yaml:3:34" in message
    assert "my.yaml:4:21" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.1,1", Choices((0.1, 1))),
        ("[0.1, 1]", Choices((0.1, 1))),
        ("0.1", Choices((0.1,))),
        ("{min: 0.1, max: 1, log: true}", NumberRange(0.1, 1.0, None, True, False)),
    ],
)
def test_space_may_be_typed_in_a_shell(
    search: Callable[..., Search], text: str, expected: Any
) -> None:
    found = search(optimizer__learning_rate=text)
    assert found.space == {"optimizer.learning_rate": expected}
    assert found.name == "quickstart"


def test_typed_mistake_is_shown_as_it_was_typed(search: Callable[..., Search]) -> None:
    with pytest.raises(ConfigError) as caught:
        search(optimizer__learning_rate="{low: 0.1, high: 1}")
    assert str(caught.value).startswith("--vary optimizer.learning_rate: ")
    assert "write {min: 0.1, max: 1}" in str(caught.value)


def test_config_in_a_sweep_file_starts_from_the_file(
    search: Callable[..., Search], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text("network: [{affine: 10}]\ndata: {dataset: mnist-sample}\n")
    for name in ("mine.yaml", "./mine.yaml"):
        found = search(f"config: {name}\nparameters: {{optimizer.learning_rate: [1]}}\n")
        assert found.base.name == "mine"


def test_values_are_drawn_evenly_and_within_their_bounds() -> None:
    rng = np.random.default_rng(0)
    log = NumberRange(1e-3, 1.0, None, True, False)
    drawn = [log.sample(rng) for _ in range(3000)]
    assert all(1e-3 <= value <= 1 for value in drawn)
    assert sum(value < math.sqrt(1e-3) for value in drawn) / 3000 == pytest.approx(0.5, abs=0.03)
    whole = NumberRange(1, 4, None, True, True)
    counts = [sum(whole.sample(rng) == n for _ in range(2000)) for n in (1, 2, 3, 4)]
    assert min(counts) > 0
    assert counts[0] > counts[3]
    stepped = NumberRange(0.0, 0.5, 0.1, False, False)
    assert {stepped.sample(rng) for _ in range(200)} == {0, 0.1, 0.2, 0.3, 0.4, 0.5}
    assert {Choices(("a", "b")).sample(rng) for _ in range(50)} == {"a", "b"}


@pytest.mark.parametrize(
    "value", [0.1, 1e-07, 3, True, None, "adam", "010", "no", "1e-3", "a b", {"kind": "sgd"}, [1]]
)
def test_override_is_read_back_as_the_value(value: Any) -> None:
    from nnctl.config.yaml_tree import Problems, SourceText, parse

    assert parse(SourceText("", as_override(value)), Problems()).plain() == value
