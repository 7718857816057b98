"""What a config may hold, derived from types: one rule reads a value, fills it in, describes it.

    int, float                    a number; `Annotated[float, Range(gt=0)]` has limits
    X | None                      X, or null
    a dataclass                   a mapping: its fields are the keys, with their defaults
    Initializer                   an entry of INITIALIZERS
    Annotated[..., rule, "text"]  what the rule says; the text describes it in the schema

So a new optimizer, or a new option of a layer, needs no line here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from functools import cache
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from nnctl.config.yaml_tree import BROKEN, Node, Place, Problems, quoted, resolve
from nnctl.nn.hyperparameters import Range, kind_of
from nnctl.nn.initializers import INITIALIZERS, Initializer
from nnctl.nn.losses import LOSSES, Loss
from nnctl.nn.optimizers import OPTIMIZERS, Optimizer
from nnctl.nn.schedules import SCHEDULES, Schedule

REGISTRIES: dict[type, Mapping[str, type]] = {
    Initializer: INITIALIZERS,
    Loss: LOSSES,
    Optimizer: OPTIMIZERS,
    Schedule: SCHEDULES,
}
MAX_INTEGER = 2**63 - 1

Schema = dict[str, Any]  # a JSON Schema


@dataclass(frozen=True)
class Choice:
    """An entry of a registry, by name, and its options; a choice in them is a dictionary."""

    kind: str
    options: dict[str, Any] = field(default_factory=dict)


class Rule:
    """What a value may be."""

    def read(self, node: Node, problems: Problems) -> Node:
        """Return the value in full, defaults filled in; add what is wrong to `problems`."""
        return node if node.value is BROKEN else self.expand(node, problems)

    def expand(self, node: Node, problems: Problems) -> Node:
        """Do what `read` promises."""
        raise NotImplementedError

    def normal(self, node: Node) -> Node:
        """Return the value with its short form, if it is one, written out."""
        return node

    def below(self, node: Node) -> Mapping[str, Rule]:
        """Return the rules of what a normal value holds, by key or index."""
        return {}

    def put(self, node: Node, name: str, child: Node) -> Node:
        """Return a normal value with another child."""
        return replace(node, value=node.value | {name: child})

    def schema(self) -> Schema:
        """Return the JSON Schema of the values, short forms included."""
        raise NotImplementedError


@dataclass(frozen=True)
class Number(Rule):
    """A finite number, true and false are none. 50 may stand for 50.0, and 50.0 for 50."""

    kind: Any  # int or float
    limits: Range

    def expand(self, node: Node, problems: Problems) -> Node:
        value = node.value
        if type(value) is int and self.kind is float:
            value = float(value) if abs(value) <= MAX_INTEGER**16 else math.inf
        elif type(value) is float and self.kind is int and value.is_integer():
            value = int(value)
        complaint: str | None
        if isinstance(value, float) and not math.isfinite(value):
            complaint = "must be finite"
        elif type(value) is not self.kind:
            complaint = "must be a whole number" if self.kind is int else "must be a number"
        elif self.kind is int and value > MAX_INTEGER:
            complaint = f"must be at most {MAX_INTEGER}"
        else:
            complaint = self.limits.complaint(value)
        if complaint:
            problems.add(node.place, f"{node.path} {complaint}, not {node}")
        return replace(node, value=value)

    def schema(self) -> Schema:
        most = MAX_INTEGER if self.kind is int and self.limits.lt is None else None
        limits = {
            "minimum": self.limits.ge,
            "exclusiveMinimum": self.limits.gt,
            "maximum": most if self.limits.le is None else self.limits.le,
            "exclusiveMaximum": self.limits.lt,
        }
        kind = {"type": "integer" if self.kind is int else "number"}
        return kind | {name: limit for name, limit in limits.items() if limit is not None}


class Word(Rule):
    """Text. On a command line, where quotes are the shell's, `name=2024` is text too."""

    def expand(self, node: Node, problems: Problems) -> Node:
        source = node.place.source
        is_scalar = isinstance(node.value, bool | int | float)
        if is_scalar and source.is_override and resolve(source.text.strip()) == node.value:
            node = replace(node, value=source.text.strip())
        if not isinstance(node.value, str):
            advice = "; put it in quotes" if is_scalar else ""
            problems.add(node.place, f"{node.path} must be a word, not {node}{advice}")
            return node
        return self.accept(node, problems)

    def accept(self, node: Node, problems: Problems) -> Node:
        """Do what `read` promises, for text."""
        raise NotImplementedError


@dataclass(frozen=True)
class Nullable(Rule):
    """What another rule allows, or null."""

    rule: Rule

    def expand(self, node: Node, problems: Problems) -> Node:
        return node if node.value is None else self.rule.read(node, problems)

    def normal(self, node: Node) -> Node:
        return self.rule.normal(node)

    def below(self, node: Node) -> Mapping[str, Rule]:
        return self.rule.below(node)

    def put(self, node: Node, name: str, child: Node) -> Node:
        return self.rule.put(node, name, child)

    def schema(self) -> Schema:
        return {"anyOf": [self.rule.schema(), {"type": "null"}]}


class Record(Rule):
    """A mapping with the fields of a dataclass; nothing stands for the defaults."""

    def __init__(self, kind: type) -> None:
        hints = get_type_hints(kind, include_extras=True)
        keys = [key for key in fields(kind) if key.compare]  # the rest is bookkeeping
        self.defaults = {key.name: value for key in keys if (value := _default(key)) is not MISSING}
        self.rules = {key.name: rule_of(hints[key.name]) for key in keys}
        self.texts = {key.name: _description(hints[key.name]) for key in keys}

    @property
    def required(self) -> list[str]:
        """The keys that have no default."""
        return [name for name in self.rules if name not in self.defaults]

    def normal(self, node: Node) -> Node:
        return replace(node, value={}) if node.value is None else node

    def below(self, node: Node) -> Mapping[str, Rule]:
        return self.rules

    def expand(self, node: Node, problems: Problems) -> Node:
        given = self.normal(node).value
        if not isinstance(given, dict):
            what = node.path or "a config"
            problems.add(node.place, f"{what} must be a mapping, not {node}", "", self.rules)
            return node
        entries = self.entries(node.path or "the config", node, given, problems)
        return replace(node, value=entries)

    def entries(
        self,
        owner: str,
        node: Node,
        given: dict[str, Node],
        problems: Problems,
        more: Sequence[str] = (),
    ) -> dict[str, Node]:
        """Return all entries in full; `owner` is what messages call the mapping at `node`.

        `more` are keys beside the rules' that are valid there, and read already.
        """
        for name in given:
            if name not in self.rules:
                message = f"unknown key {quoted(name)} in {owner}"
                problems.add(given[name].key, message, name, [*more, *self.rules])
        for name in self.required:
            if name not in given:
                problems.add(node.place, f"{owner} needs {name}")
        full = {name: node.child(name, value) for name, value in self.defaults.items()} | given
        return {
            name: rule.read(full[name], problems)
            for name, rule in self.rules.items()
            if name in full
        }

    def schema(self) -> Schema:
        return self.mapping_schema() | {"type": ["object", "null"]}

    def mapping_schema(self) -> Schema:
        """Return the schema of a mapping that is there."""
        properties = {}
        for name, rule in self.rules.items():
            properties[name] = rule.schema() | self.texts[name]
            if self.defaults.get(name) not in (None, "", {}):
                properties[name]["default"] = self.defaults[name]
        return {
            "type": "object",
            "properties": properties,
            "required": self.required,
            "additionalProperties": False,
        }


@dataclass(frozen=True)
class Kinds(Rule):
    """An entry of a registry: its name, or a mapping of `kind` and the entry's options."""

    base: type  # of the entries
    default: str  # the kind of a mapping without one

    @property
    def registry(self) -> Mapping[str, type]:
        """The entries by name."""
        return REGISTRIES[self.base]

    def normal(self, node: Node) -> Node:
        if isinstance(node.value, str):
            kind = replace(node, path=node.child("kind").path)
            return replace(node, value={"kind": kind})
        if isinstance(node.value, dict):
            return replace(node, value={"kind": node.child("kind", self.default)} | node.value)
        return node

    def below(self, node: Node) -> Mapping[str, Rule]:
        entry = self._entry(node)
        return {"kind": Rule(), **(record(entry).rules if entry else {})}

    def put(self, node: Node, name: str, child: Node) -> Node:
        options = node.value
        if name == "kind" and child.value != options["kind"].value:
            # The options in the file are the old kind's; what is set beside the kind stays.
            options = {key: n for key, n in options.items() if n.place.source.is_override}
        return replace(node, value=options | {name: child})

    def expand(self, node: Node, problems: Problems) -> Node:
        noun = self.base.__name__.lower()
        normal = self.normal(node)
        if not isinstance(normal.value, dict):
            message = f"{node.path} must be the name of one {noun}, not {node}"
            problems.add(node.place, message, "", self.registry)
            return node
        kind = normal.value["kind"]
        entry = self._entry(normal)
        if entry is None:
            if kind.value is not BROKEN:
                word = kind.value if isinstance(kind.value, str) else ""
                what = quoted(word) if word else str(kind)
                problems.add(kind.place, f"{what} is no {noun}", word, self.registry)
            return node
        options = {name: option for name, option in normal.value.items() if name != "kind"}
        entries = record(entry).entries(kind.value, node, options, problems, ["kind"])
        return replace(node, value={"kind": kind, **entries})

    def _entry(self, node: Node) -> type | None:
        kind = node.value["kind"].value if isinstance(node.value, dict) else None
        return self.registry.get(kind) if isinstance(kind, str) else None

    def schema(self) -> Schema:
        choices: list[Schema] = [{"enum": list(self.registry)}]
        for name, entry in self.registry.items():
            choice = record(entry).mapping_schema()
            choice["properties"] = {"kind": {"const": name}} | choice["properties"]
            if name != self.default:
                choice["required"] = ["kind", *choice["required"]]
            choices.append(choice | {"description": summary(entry)})
        return {"anyOf": choices}


def assign(
    rule: Rule, node: Node, keys: Sequence[tuple[str, Place]], new: Node, problems: Problems
) -> Node:
    """Return `node`, short forms on the way written out, with `new` where `keys` lead.

    Each key comes with its place. What `new` itself must be is left to `read`.
    """
    (name, place), *rest = keys
    node = rule.normal(node)
    below = rule.below(node)
    if isinstance(node.value, list):
        if name not in below:
            there = f"there are {len(node.value)}, counted from 0"
            problems.add(place, f"{node.path} has no entry {quoted(name)}; {there}")
            return node
        old = node.value[int(name)]
    elif isinstance(node.value, dict):
        old = node.value.get(name)
        if old is None or old.value is None:  # what is made on the way is the override's
            old = Node({}, node.child(name).path, place, place)
    else:
        if node.value is not BROKEN:
            problems.add(place, f"{node.path} is {node}: there is no {quoted(name)} in it")
        return node
    if rest and name in below:
        new = assign(below[name], old, rest, new, problems)
    # else an unknown key, which `read` tells
    return rule.put(node, name, replace(new, key=old.key))


def record(kind: Any) -> Record:
    """Return the rule of a dataclass."""
    return _record(kind)


_record = cache(Record)  # a decorator in its place would take hashable arguments, says mypy


def rule_of(hint: Any) -> Rule:
    """Return the rule that a type hint stands for."""
    kind, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    for extra in extras:
        if isinstance(extra, Rule):
            return extra
    if NoneType in get_args(kind):
        return Nullable(rule_of(get_args(kind)[0]))
    if kind is Initializer:
        return Kinds(Initializer, "he_normal")
    if is_dataclass(kind):
        return record(kind)
    return Number(kind, next((extra for extra in extras if isinstance(extra, Range)), Range()))


def _default(key: Field[Any]) -> Any:
    """Return the default of a dataclass's field as a config would say it, or MISSING."""
    value = key.default if key.default_factory is MISSING else key.default_factory()
    if isinstance(value, Choice):
        return value.kind
    if isinstance(value, Initializer):
        return kind_of(INITIALIZERS, value)
    return {} if is_dataclass(value) else value


def _description(hint: Any) -> Schema:
    """Return the part of a schema that says in words what a field is."""
    texts = [part for part in get_args(hint) if isinstance(part, str)]
    return {"description": texts[0]} if texts else {}


def summary(kind: type) -> str:
    """Return the first line of a class's docstring."""
    return (kind.__doc__ or "").partition("\n")[0]
