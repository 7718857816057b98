"""A sweep's settings: a file or options in, a checked search out."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

from nnctl import datasets
from nnctl.config import (
    Settings,
    check_shapes,
    dump_yaml,
    load_settings,
    read_text,
    settings_from_dict,
    to_dict,
    with_counts,
    with_values,
)
from nnctl.config.names import RunNameSchema
from nnctl.config.schema import JsonSchema, OptionalSchema, Schema, TextSchema, mapping_schema
from nnctl.config.yaml_tree import (
    Place,
    Problems,
    SourceText,
    YamlNode,
    node_of,
    parse,
    quoted,
    resolve,
)
from nnctl.errors import ConfigError
from nnctl.files import has_separator
from nnctl.nn.hyperparameters import Count, Range
from nnctl.sweeps.space import ParametersSchema, Space, is_number, parameter_of
from nnctl.training.events import EpochFinished

METHODS = ("grid", "random", "bayes")
TRIALS = 20  # of a random or Bayesian search that does not say how many
MAX_TRIALS = 100_000
# Numeric fields of `run_finished` that do not read the test set.
OBJECTIVES = (
    *("validation_loss", "validation_accuracy", "train_loss", "train_accuracy"),
    *("overfitting.gap", "overfitting.evidence.loss_rise", "best_epoch", "epochs"),
    *("parameters", "seconds"),
)
# What other tools call a key of a sweep.
ELSEWHERE = {
    **dict.fromkeys(("metric", "goal", "direction", "monitor"), "objective"),
    **dict.fromkeys(("n_trials", "count", "run_cap", "num_samples", "max_trials"), "trials"),
    **dict.fromkeys(("n_jobs", "max_concurrent", "workers", "jobs"), "parallel"),
    **dict.fromkeys(("space", "search_space", "params", "grid", "vary"), "parameters"),
    **dict.fromkeys(("early_terminate", "pruner", "early_stopping", "scheduler"), "prune"),
    **dict.fromkeys(("sampler", "algorithm", "search", "strategy"), "method"),
    **dict.fromkeys(("program", "command", "base"), "config"),
    **dict.fromkeys(("fixed", "overrides", "args"), "set"),
}


class WordSchema(TextSchema):
    """One of a few words."""

    def __init__(self, words: Sequence[str], *, why_not: Mapping[str, str]) -> None:
        self.words, self.why_not = words, why_not

    def validate_text(self, node: YamlNode, problems: Problems) -> YamlNode:
        word = node.value
        if word in self.words:
            return node
        reason = next((why for start, why in self.why_not.items() if word.startswith(start)), "")
        message = f"{node.path} can't be {quoted(word)}"
        if reason:
            problems.add(node.place, f"{message}: {reason}")
        else:
            problems.add(node.place, message, word, self.words)
        return node

    def json_schema(self) -> JsonSchema:
        return {"enum": list(self.words)}


class ConfigNameSchema(TextSchema):
    """A config as `train --config` takes it."""

    def validate_text(self, node: YamlNode, problems: Problems) -> YamlNode:
        return node

    def json_schema(self) -> JsonSchema:
        return {"type": "string"}


class ValuesSchema(Schema):
    """A mapping of config keys to values of any kind; the config's schema checks them."""

    def _validate(self, node: YamlNode, problems: Problems) -> YamlNode:
        if not isinstance(node.value, dict):
            problems.add(
                node.place, f"{node.path} must be a mapping of config keys to values, not {node}"
            )
        return node

    def json_schema(self) -> JsonSchema:
        return {"type": "object"}


@dataclass(frozen=True)
class Pruning:
    """When a trial is given up: worse after so many epochs than the median of earlier ones."""

    after: Annotated[Count, "The epoch after which a trial is compared."]


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """What a sweep file holds."""

    name: Annotated[
        str | None,
        OptionalSchema(RunNameSchema()),
        "The sweep's name; default: that of the file, or of the config.",
    ] = None
    config: Annotated[str, ConfigNameSchema(), "As for train --config."]
    set: Annotated[dict[str, Any], ValuesSchema(), "Overrides for every trial."] = field(
        default_factory=dict
    )
    method: Annotated[
        str | None,
        OptionalSchema(WordSchema(METHODS, why_not={"tpe": "write bayes", "tree": "write bayes"})),
        "grid, random or bayes; default: grid where every parameter has a list or a step.",
    ] = None
    trials: Annotated[
        Annotated[int, Range(ge=1, le=MAX_TRIALS)] | None, "How many; a grid knows it."
    ] = None
    parallel: Annotated[int, Range(ge=1, le=1024), "Trials under way at once."] = 2
    seeds: Annotated[int, Range(ge=1, le=1000), "Trainings a trial."] = 1
    seed: Annotated[int, Range(ge=0), "Of the search, and of the first training."] = 0
    objective: Annotated[
        str,
        WordSchema(OBJECTIVES, why_not={"test": "nothing is ever chosen on the test set"}),
        "A field of run_finished; accuracies are maximised, everything else is minimised.",
    ] = "validation_loss"
    parameters: Annotated[dict[str, Any], ParametersSchema(), "The search space."]
    prune: Annotated[Pruning | None, "Give up trials that begin badly."] = None


@dataclass(frozen=True)
class Search:
    """A sweep that has been checked: all that its plan depends on."""

    name: str
    config: str  # as `train --config` takes it
    base: Settings  # the config, without `set`
    set: dict[str, Any]
    method: str
    trials: int
    parallel: int
    seeds: int
    seed: int
    objective: str
    parameters: dict[str, Any]  # as they are written
    space: Space
    prune_after: int | None

    @property
    def maximised(self) -> bool:
        """True if the objective is better the higher it is."""
        return self.objective.endswith("accuracy")

    @property
    def in_order(self) -> bool:
        """True if a trial depends on the results of earlier ones."""
        return self.method == "bayes" or self.prune_after is not None

    @property
    def common(self) -> Settings:
        """The settings that all trials begin with."""
        fixed = [(key, as_override(value)) for key, value in self.set.items()]
        return settings_from_dict(to_dict(self.base), fixed)

    def loss(self, objective: float) -> float:
        """Return the objective as a number that is better the lower it is."""
        return -objective if self.maximised else objective

    def training_seeds(self) -> range:
        """Return the seeds of a trial's trainings."""
        return range(self.seed, self.seed + self.seeds)

    def to_yaml(self, config: str) -> str:
        """Return the sweep file that gives this search again, with its config called `config`."""
        plain = {
            "name": self.name,
            "config": config,
            "set": self.set,
            "method": self.method,
            "trials": None if self.method == "grid" else self.trials,
            "parallel": self.parallel,
            "seeds": self.seeds,
            "seed": self.seed,
            "objective": self.objective,
            "parameters": self.parameters,
            "prune": self.prune_after and {"after": self.prune_after},
        }
        return dump_yaml(plain)

    def overrides(self, values: Mapping[str, Any], seed: int) -> list[tuple[str, str]]:
        """Return what a training with these values is given as `--set KEY=VALUE`, in order."""
        return [
            *((key, as_override(value)) for key, value in self.set.items()),
            *((key, as_override(values[key])) for key in in_order(values)),
            ("seed", str(seed)),
        ]


def in_order(keys: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """Return config keys so that none undoes another: subtrees before what lies in them.

    A new `kind` drops the options of the old one, so it goes before them.
    """
    return sorted(keys, key=lambda key: (key.count("."), not key.endswith(".kind")))


def as_override(value: Any) -> str:
    """Return a plain value as `--set` reads it.

    >>> as_override(0.1), as_override("adam"), as_override("010"), as_override({"kind": "sgd"})
    ('0.1', 'adam', '"010"', '{"kind": "sgd"}')
    """
    if isinstance(value, str) and resolve(value) == value and re.fullmatch(r"[\w./-]+", value):
        return value
    return json.dumps(value, ensure_ascii=False)


def load_search(file: str | None, options: Mapping[str, Any], varied: Mapping[str, str]) -> Search:
    """Return the search that a sweep file, or options that say the same, describe.

    `options` are keys of the file with plain values, `varied` parameters with their YAML text;
    both go before what the file says.

    Raises:
        ConfigError: something is wrong with them, with the config, or with the two together.

    """
    problems = Problems()
    if file is None:
        root, folder = node_of({}, "", SourceText("").place(0)), Path()
    else:
        path = Path(file)
        folder = path.parent
        advice = "a sweep file lists config, method and parameters; `nnctl sweep --help`"
        root = parse(read_text(path, folder, advice), problems)
        if not isinstance(root.value, dict):
            problems.fail(root.place, f"a sweep must be a mapping, not {root}")
    given = {**root.value}
    for key, value in options.items():
        if key == "set":
            typed = {k: _written(f"--set {k}", text, k) for k, text in value.items()}
            given["set"] = _joined(given, "set", typed, root.place)
        else:
            label = f"--{key}"
            source = SourceText(label, str(value), is_override=True)
            given[key] = node_of(value, key, source.place(0))
            if key == "config":
                folder = Path()
    if varied:
        found = {key: _varied(key, text, problems) for key, text in varied.items()}
        given["parameters"] = _joined(given, "parameters", found, root.place)
    _name_what_is_meant(given, problems)
    schema = mapping_schema(SweepSettings)
    full = schema.validate_entries("the sweep", root, given, problems)
    problems.check()
    return _Checked(full, folder, file).search()


def _joined(
    given: Mapping[str, YamlNode], key: str, typed: dict[str, YamlNode], place: Place
) -> YamlNode:
    """Return the mapping at `key` with what was typed; what is no mapping stays, to be reported."""
    before = given.get(key, YamlNode({}, key, place, place))
    if not isinstance(before.value, dict):
        return before
    return replace(before, value=before.value | typed)


def _written(label: str, text: str, path: str) -> YamlNode:
    problems = Problems()
    node = parse(SourceText(label, text, Path(), is_override=True), problems, path)
    problems.check()
    return node


def _varied(key: str, text: str, problems: Problems) -> YamlNode:
    """Return the choices or the range that were typed: YAML, or `A,B,C` for a list."""
    label = f"--vary {key}"
    node = parse(SourceText(label, text, Path(), is_override=True), problems, f"parameters.{key}")
    if not isinstance(node.value, list | dict):
        listed = SourceText(label, f"[{text}]", Path(), is_override=True)
        node = parse(listed, problems, f"parameters.{key}")
    return node


def _name_what_is_meant(given: dict[str, YamlNode], problems: Problems) -> None:
    """Report the words of other tools, and take them away."""
    known = {key.name for key in fields(SweepSettings)}
    for name in [name for name in given if name in ELSEWHERE and name not in known]:
        problems.add(given[name].key, f"{quoted(name)} is called {ELSEWHERE[name]} here")
        del given[name]


@dataclass
class _Checked:
    """Holds a valid sweep against its config: every choice and both ends of every range."""

    full: dict[str, YamlNode]
    folder: Path  # what the config's path starts from
    file: str | None

    def search(self) -> Search:
        plain = {name: node.plain() for name, node in self.full.items()}
        config = self._config(plain["config"])
        base = load_settings(config)
        fixed = [node.moved(key) for key, node in self.full["set"].value.items()]
        space, parameters = self._space(base, fixed)
        method = self._method(plain["method"], space)
        return Search(
            name=plain["name"] or self._default_name(base),
            config=config,
            base=base,
            set=self._absolute(base, fixed, plain["set"]),
            method=method,
            trials=self._trials(method, plain["trials"], space),
            parallel=plain["parallel"],
            seeds=plain["seeds"],
            seed=plain["seed"],
            objective=plain["objective"],
            parameters=parameters,
            space=space,
            prune_after=self._prune_after(base, fixed, plain),
        )

    def _config(self, config: str) -> str:
        """Return what `load_settings` takes: a path in a sweep file starts from the file."""
        path = self.folder / config
        return str(path) if has_separator(config) or os.path.isfile(path) else config

    def _default_name(self, base: Settings) -> str:
        if self.file is None:
            return base.name
        name = Path(self.file).stem
        if not RunNameSchema.allows(name):
            raise self._error(
                "name", f"the sweep would be named {quoted(name)} after the file; give it a `name:`"
            )
        return name

    def _error(self, key: str, message: str) -> ConfigError:
        return ConfigError(self.full[key].place.show(message))

    def _space(self, base: Settings, fixed: Sequence[YamlNode]) -> tuple[Space, dict[str, Any]]:
        """Return the space, and the parameters as they are to be written down."""
        nodes = self.full["parameters"].value
        for key, node in nodes.items():
            if key in ("seed", "name"):
                advice = "use `seeds: N`" if key == "seed" else "a trial's folder is its name"
                raise ConfigError(node.key.show(f"{key} can't be varied: {advice}"))
        tried = {key: list(_ends(key, node)) for key, node in nodes.items()}
        errors: dict[str, None] = {}
        space: Space = {}
        parameters: dict[str, Any] = {}
        for key, node in nodes.items():
            plain = node.plain()
            seen: list[Any] = []
            for candidate in tried[key]:
                chosen = {**{name: ends[0] for name, ends in tried.items()}, key: candidate}
                try:
                    settings = with_values(base, [*fixed, *(chosen[k] for k in in_order(chosen))])
                    check_trainable(settings)
                    seen.append(value_at(settings, key))
                except ConfigError as error:
                    errors[str(error)] = None
            if errors:
                continue
            if isinstance(plain, list):
                plain = [
                    absolute if isinstance(value, str) and isinstance(absolute, str) else value
                    for value, absolute in zip(plain, seen, strict=True)
                ]
            elif not all(map(is_number, seen)):
                message = f"{key} is no number, so it has no range: list its choices"
                errors[node.place.show(message)] = None
                continue
            whole = all(isinstance(value, int) for value in seen)
            step = plain.get("step") if isinstance(plain, dict) else None
            if whole and step is not None and not float(step).is_integer():
                errors[node.value["step"].place.show(f"{key}.step must be a whole number")] = None
                continue
            space[key], parameters[key] = parameter_of(plain, whole), plain
        if errors:
            raise ConfigError("\n".join(errors))
        return space, parameters

    def _absolute(
        self, base: Settings, fixed: Sequence[YamlNode], plain: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return `set` with paths that do not depend on where the sweep file lies."""
        if not fixed:
            return {}
        settings = with_values(base, fixed)
        found = {key: value_at(settings, key) for key in plain}
        return {
            key: found[key] if isinstance(value, str) and isinstance(found[key], str) else value
            for key, value in plain.items()
        }

    def _method(self, method: str | None, space: Space) -> str:
        endless = [key for key, parameter in space.items() if parameter.size is None]
        if method is None:
            return "random" if endless else "grid"
        if method == "grid" and endless:
            node = self.full["parameters"].value[endless[0]]
            raise ConfigError(
                node.place.show(
                    f"a grid needs choices, or a range with a step: {endless[0]} has neither"
                )
            )
        return method

    def _trials(self, method: str, trials: int | None, space: Space) -> int:
        if method != "grid":
            return trials or TRIALS
        points = math.prod(parameter.size or 0 for parameter in space.values())
        if trials is not None:
            raise self._error(
                "trials", f"a grid tries each of its {points:,} points once: leave trials out"
            )
        if points > MAX_TRIALS:
            raise self._error(
                "parameters",
                f"a grid of {points:,} points; at most {MAX_TRIALS:,} are allowed: use random",
            )
        return points

    def _prune_after(
        self, base: Settings, fixed: Sequence[YamlNode], plain: Mapping[str, Any]
    ) -> int | None:
        if plain["prune"] is None:
            return None
        if plain["objective"] not in EpochFinished.__annotations__:
            raise self._error(
                "objective",
                f"{plain['objective']} is known only at the end: trials can't be pruned by it",
            )
        epochs = with_values(base, fixed).training.epochs
        after: int = plain["prune"]["after"]
        if after >= epochs and "training.epochs" not in plain["parameters"]:
            raise ConfigError(
                self.full["prune"]
                .value["after"]
                .place.show(f"prune.after must be below training.epochs, {epochs}")
            )
        return after


def _ends(key: str, node: YamlNode) -> Iterator[YamlNode]:
    """Yield the nodes that stand for a parameter's values: every choice, or both ends."""
    listed = isinstance(node.value, list)
    for each in node.value if listed else (node.value["min"], node.value["max"]):
        yield replace(each.moved(key), key=node.key)


def check_trainable(settings: Settings) -> None:
    """Refuse settings that can't be trained, or that leave nothing to compare trials on."""
    description = datasets.describe(settings.data.dataset, parts=("train",))
    if not with_counts(settings, description.train_samples).data.validation:
        raise settings.error(
            "data.validation", "a sweep chooses on validation images: data.validation is 0"
        )
    check_shapes(settings, description.inputs, description.classes)


def value_at(settings: Settings, key: str) -> Any:
    """Return the value of a config key; None where there is none."""
    value: Any = to_dict(settings)
    for name in key.split("."):
        if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        elif isinstance(value, dict):
            value = value.get(name)
        else:
            return None
    return value
