"""The search space: what each parameter of a sweep may be, as YAML says it and as it is drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnctl.config.schema import JsonSchema, Schema
from nnctl.config.yaml_tree import BROKEN, Problems, YamlNode, cut

DIGITS = 6  # significant digits of a number that is drawn, so that it can be typed again


@dataclass(frozen=True)
class Choices:
    """A parameter that is one of several values of any kind."""

    values: tuple[Any, ...]

    @property
    def size(self) -> int:
        """How many values there are."""
        return len(self.values)

    def value(self, index: int) -> Any:
        """Return the value at `index`."""
        return self.values[index]

    def sample(self, rng: np.random.Generator) -> Any:
        """Return a value, each as likely as the others."""
        return self.value(int(rng.integers(self.size)))


@dataclass(frozen=True)
class NumberRange:
    """A number between two bounds, which are included.

    With `step` it is low, low + step, low + 2 step, ...; with `log` its logarithm is spread
    evenly.
    """

    low: float
    high: float
    step: float | None
    log: bool
    whole: bool  # whole numbers alone

    @property
    def size(self) -> int | None:
        """How many values there are; None where they can't be counted through."""
        if self.step is None:
            return None
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def value(self, index: int) -> float:
        """Return the value at `index`, where there is a step."""
        assert self.step is not None
        return self.tidy(self.low + index * self.step)

    def sample(self, rng: np.random.Generator) -> float:
        """Return a value, each as likely as the others (with `log`: each logarithm)."""
        if self.size is not None:
            return self.value(int(rng.integers(self.size)))
        # A whole number stands for all that is rounded to it.
        margin = 0.5 if self.whole else 0.0
        low, high = self.low - margin, self.high + margin
        if self.log:
            return self.tidy(math.exp(rng.uniform(math.log(low), math.log(high))))
        return self.tidy(rng.uniform(low, high))

    def tidy(self, value: float) -> float:
        """Return a number inside the range with no more digits than a person would type."""
        if self.whole:
            return int(min(max(round(value), self.low), self.high))
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)


Parameter = Choices | NumberRange
Space = dict[str, Parameter]


# What is written in a sweep file.

BOUNDS = {
    "min": ("min", "low", "lower", "minimum", "start"),
    "max": ("max", "high", "upper", "maximum", "stop", "end"),
    "step": ("step", "q"),
}  # nnctl's words, and those of other tools
LISTS = ("values", "choices", "categories", "grid_search")
KINDS = ("distribution", "space", "type", "sampling")
RANGE_KEYS = ("min", "max", "step", "log")


class ParametersSchema(Schema):
    """The search space: a key of the config, and the choices or the range that it has."""

    def _validate(self, node: YamlNode, problems: Problems) -> YamlNode:
        if not isinstance(node.value, dict) or not node.value:
            message = "parameters must be a mapping of config keys to choices or ranges"
            problems.add(node.place, f"{message}, not {node}")
            return node
        for key, below in node.value.items():
            check_parameter(key, below, problems)
        return node

    def json_schema(self) -> JsonSchema:
        choices = {"type": "array", "minItems": 1}
        numbers = {name: {"type": "number"} for name in ("min", "max", "step")}
        span = {
            "type": "object",
            "properties": {**numbers, "log": {"type": "boolean"}},
            "required": ["min", "max"],
            "additionalProperties": False,
        }
        return {"type": "object", "additionalProperties": {"anyOf": [choices, span]}}


def check_parameter(key: str, node: YamlNode, problems: Problems) -> None:
    """Add to `problems` what is wrong with the choices or the range of one parameter."""
    if isinstance(node.value, list):
        if not node.value:
            problems.add(node.place, f"{key} has no choices")
        seen: list[Any] = []
        for choice in node.value:
            plain = choice.plain()
            if any(plain == other and type(plain) is type(other) for other in seen):
                problems.add(choice.place, f"{key} has the choice {_flow(plain)} twice")
            seen.append(plain)
    elif isinstance(node.value, dict):
        _check_range(key, node, problems)
    elif node.value is not BROKEN:
        problems.add(
            node.place,
            f"{key} must be a list of choices or a range, not {node}; "
            "write [A, B, C] or {min: A, max: B}",
        )


def _check_range(key: str, node: YamlNode, problems: Problems) -> None:
    given = node.value
    strange = [name for name in given if name not in RANGE_KEYS]
    if strange:
        name = strange[0]
        advice = _translated(node.plain()) or "a range has min, max, and perhaps step or log"
        problems.add(given[name].key, f"{key}: a range has no {name!r}; {advice}")
        return
    numbers = {}
    for name in ("min", "max", "step"):
        value = given[name].value if name in given else None
        if name not in given and name != "step":
            problems.add(node.place, f"{key}: a range needs {name}")
        elif value is not None:
            if is_number(value) and math.isfinite(value):
                numbers[name] = value
                continue
            problems.add(given[name].place, f"{key}.{name} must be a number, not {given[name]}")
        elif name in given:
            problems.add(given[name].place, f"{key}.{name} must be a number, not empty")
    log = given["log"].value if "log" in given else False
    if not isinstance(log, bool):
        problems.add(given["log"].place, f"{key}.log must be true or false, not {given['log']}")
    elif log and "step" in given:
        problems.add(given["step"].key, f"{key}: a range with log has no step; list its choices")
    elif log and numbers.get("min", 1) <= 0:
        problems.add(given["min"].place, f"{key}.min must be above 0 for a range with log: true")
    if "min" in numbers and "max" in numbers and numbers["min"] >= numbers["max"]:
        problems.add(given["max"].place, f"{key}.max must be above min, {numbers['min']}")
    if numbers.get("step", 1) <= 0:
        problems.add(given["step"].place, f"{key}.step must be above 0")


def is_number(value: Any) -> bool:
    """Return whether a plain value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _translated(given: Mapping[str, Any]) -> str:
    """Return how nnctl would write what somebody has written for another tool."""
    for name in LISTS:
        if isinstance(given.get(name), list):
            return f"write the list of choices alone: {_flow(given[name])}"
    if "value" in given:
        return f"one value belongs below `set:`, or is a list of one: {_flow([given['value']])}"
    parts = {}
    for name, words in BOUNDS.items():
        found = [given[word] for word in words if given.get(word) is not None]
        if found:
            parts[name] = found[0]
    kind = " ".join(str(given[name]) for name in KINDS if name in given)
    if given.get("log") is True or "log" in kind:
        parts["log"] = True
    if not {"min", "max"} <= parts.keys():
        return ""
    return f"write {_flow(parts)}"


def _flow(value: Any) -> str:
    """Return a value as YAML on one line, for a message."""
    if isinstance(value, dict):
        text = ", ".join(f"{name}: {_flow(below)}" for name, below in value.items())
        return cut(f"{{{text}}}")
    if isinstance(value, list):
        return cut(f"[{', '.join(map(_flow, value))}]")
    return value if isinstance(value, str) else json.dumps(value)


def parameter_of(plain: Any, whole: bool) -> Parameter:
    """Return the parameter that `plain`, known to be right, describes."""
    if isinstance(plain, list):
        return Choices(tuple(plain))
    log, step = plain.get("log", False), plain.get("step")
    whole = whole and all(float(plain[name]).is_integer() for name in ("min", "max"))
    if whole and step is None and not log:
        step = 1
    kind = int if whole else float
    return NumberRange(
        low=kind(plain["min"]),
        high=kind(plain["max"]),
        step=None if step is None else kind(step),
        log=log,
        whole=whole,
    )
