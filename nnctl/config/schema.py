"""The schema of a config, derived from types: it validates a value, completes and describes it.

    int, float                    a number; `Annotated[float, Range(gt=0)]` has limits
    bool                          true or false
    X | None                      X, or null
    a dataclass                   a mapping: its fields are the keys, with their defaults
    Initializer                   an entry of INITIALIZERS
    Annotated[..., schema, "text"]  what the schema says; the text is its description

So a new optimizer, or a new option of a layer, needs no line here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from functools import cache
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from nnctl.config.yaml_tree import BROKEN, Place, Problems, YamlNode, quoted, resolve
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

JsonSchema = dict[str, Any]  # a JSON Schema


@dataclass(frozen=True)
class Choice:
    """An entry of a registry, by name, and its options; a choice in them is a dictionary."""

    kind: str
    options: dict[str, Any] = field(default_factory=dict)


class Schema:
    """What a value in a config may be."""

    def validate(self, node: YamlNode, problems: Problems) -> YamlNode:
        """Return the value completed with its defaults; add what is wrong to `problems`."""
        return node if node.value is BROKEN else self._validate(node, problems)

    def _validate(self, node: YamlNode, problems: Problems) -> YamlNode:
        """Do what `validate` promises, for a value that could be parsed."""
        raise NotImplementedError

    def normalize(self, node: YamlNode) -> YamlNode:
        """Return the value in its long form."""
        return node

    def children(self, node: YamlNode) -> Mapping[str, Schema]:
        """Return the schemas of the parts of a value in long form, by key or index."""
        return {}

    def with_child(self, node: YamlNode, name: str, child: YamlNode) -> YamlNode:
        """Return a value in long form with another child."""
        return replace(node, value=node.value | {name: child})

    def keys(self, path: str) -> Iterator[str]:
        """Yield the paths of all keys that a value at `path` may have."""
        return iter(())

    def json_schema(self) -> JsonSchema:
        """Return the JSON Schema of the values, short forms included."""
        raise NotImplementedError


@dataclass(frozen=True)
class NumberSchema(Schema):
    """A finite number, true and false are none. 50 may stand for 50.0, and 50.0 for 50."""

    kind: Any  # int or float
    limits: Range

    def _validate(self, node: YamlNode, problems: Problems) -> YamlNode:
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

    def json_schema(self) -> JsonSchema:
        most = MAX_INTEGER if self.kind is int and self.limits.lt is None else None
        limits = {
            "minimum": self.limits.ge,
            "exclusiveMinimum": self.limits.gt,
            "maximum": most if self.limits.le is None else self.limits.le,
            "exclusiveMaximum": self.limits.lt,
        }
        kind = {"type": "integer" if self.kind is int else "number"}
        return kind | {name: limit for name, limit in limits.items() if limit is not None}


class CountOrFractionSchema(Schema):
    """A whole number from 0, a fraction between 0 and 1, or null."""

    count = NumberSchema(int, Range(ge=0))

    def _validate(self, node: YamlNode, problems: Problems) -> YamlNode:
        value = node.value
        if value is None or (type(value) is float and 0 < value < 1):
            return node
        if type(value) is float and math.isfinite(value) and not value.is_integer():
            message = f"{node.path} must be a whole number, or a fraction below 1, not {node}"
            problems.add(node.place, message)
            return node
        return self.count.validate(node, problems)

    def json_schema(self) -> JsonSchema:
        fraction = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
        return {"anyOf": [self.count.json_schema(), fraction, {"type": "null"}]}


class SwitchSchema(Schema):
    """True or false, spelt like that."""

    def _validate(self, node: YamlNode, problems: Problems) -> YamlNode:
        if not isinstance(node.value, bool):
            problems.add(node.place, f"{node.path} must be true or false, not {node}")
        return node

    def json_schema(self) -> JsonSchema:
        return {"type": "boolean"}


class TextSchema(Schema):
    """Text. On a command line, where quotes are the shell's, `name=2024` is text too."""

    def _validate(self, node: YamlNode, problems: Problems) -> YamlNode:
        source = node.place.source
        is_scalar = isinstance(node.value, bool | int | float)
        if is_scalar and source.is_override and resolve(source.text.strip()) == node.value:
            node = replace(node, value=source.text.strip())
        if not isinstance(node.value, str):
            advice = "; put it in quotes" if is_scalar else ""
            problems.add(node.place, f"{node.path} must be a word, not {node}{advice}")
            return node
        return self.validate_text(node, problems)

    def validate_text(self, node: YamlNode, problems: Problems) -> YamlNode:
        """Do what `validate` promises, for text."""
        raise NotImplementedError


@dataclass(frozen=True)
class OptionalSchema(Schema):
    """What another schema allows, or null."""

    schema: Schema

    def _validate(self, node: YamlNode, problems: Problems) -> YamlNode:
        return node if node.value is None else self.schema.validate(node, problems)

    def normalize(self, node: YamlNode) -> YamlNode:
        return self.schema.normalize(node)

    def children(self, node: YamlNode) -> Mapping[str, Schema]:
        return self.schema.children(node)

    def with_child(self, node: YamlNode, name: str, child: YamlNode) -> YamlNode:
        return self.schema.with_child(node, name, child)

    def keys(self, path: str) -> Iterator[str]:
        return self.schema.keys(path)

    def json_schema(self) -> JsonSchema:
        return {"anyOf": [self.schema.json_schema(), {"type": "null"}]}


class MappingSchema(Schema):
    """A mapping with the fields of a dataclass; nothing stands for the defaults."""

    def __init__(self, kind: type) -> None:
        hints = get_type_hints(kind, include_extras=True)
        keys = [key for key in fields(kind) if key.repr]  # the rest is bookkeeping
        self.defaults = {key.name: value for key in keys if (value := _default(key)) is not MISSING}
        self.properties = {key.name: schema_of(hints[key.name]) for key in keys}
        self.descriptions = {key.name: _description(hints[key.name]) for key in keys}

    @property
    def required(self) -> list[str]:
        """The keys that have no default."""
        return [name for name in self.properties if name not in self.defaults]

    def normalize(self, node: YamlNode) -> YamlNode:
        return replace(node, value={}) if node.value is None else node

    def children(self, node: YamlNode) -> Mapping[str, Schema]:
        return self.properties

    def _validate(self, node: YamlNode, problems: Problems) -> YamlNode:
        given = self.normalize(node).value
        if not isinstance(given, dict):
            what = node.path or "a config"
            problems.add(node.place, f"{what} must be a mapping, not {node}", "", self.properties)
            return node
        entries = self.validate_entries(node.path or "the config", node, given, problems)
        return replace(node, value=entries)

    def validate_entries(
        self,
        owner: str,
        node: YamlNode,
        given: dict[str, YamlNode],
        problems: Problems,
        more: Sequence[str] = (),
    ) -> dict[str, YamlNode]:
        """Return all entries completed; `owner` is what messages call the mapping at `node`.

        `more` are other keys that are valid there, and validated already.
        """
        for name in given:
            if name not in self.properties:
                message = f"unknown key {quoted(name)} in {owner}"
                problems.add(given[name].key, message, name, [*more, *self.properties], "key")
        for name in self.required:
            if name not in given:
                problems.add(node.place, f"{owner} needs {name}")
        full = {name: node.child(name, value) for name, value in self.defaults.items()} | given
        return {
            name: schema.validate(full[name], problems)
            for name, schema in self.properties.items()
            if name in full
        }

    def keys(self, path: str) -> Iterator[str]:
        for name, schema in self.properties.items():
            below = f"{path}.{name}" if path else name
            yield below
            yield from schema.keys(below)

    def json_schema(self) -> JsonSchema:
        return self.mapping_json_schema() | {"type": ["object", "null"]}

    def mapping_json_schema(self) -> JsonSchema:
        """Return the JSON Schema of a mapping, null excluded."""
        properties = {}
        for name, schema in self.properties.items():
            properties[name] = schema.json_schema() | self.descriptions[name]
            if self.defaults.get(name) not in (None, "", {}):
                properties[name]["default"] = self.defaults[name]
        return {
            "type": "object",
            "properties": properties,
            "required": self.required,
            "additionalProperties": False,
        }


@dataclass(frozen=True)
class KindSchema(Schema):
    """An entry of a registry: its name, or a mapping of `kind` and the entry's options.

    Like a layer it may also be written `name: {options}`.
    """

    base: type  # of the entries
    default: str  # the kind of a mapping without one

    @property
    def registry(self) -> Mapping[str, type]:
        """The entries by name."""
        return REGISTRIES[self.base]

    @property
    def noun(self) -> str:
        """What messages call an entry."""
        return self.base.__name__.lower()

    def normalize(self, node: YamlNode) -> YamlNode:
        path = node.child("kind").path
        if isinstance(node.value, str):
            return replace(node, value={"kind": replace(node, path=path)})
        if not isinstance(node.value, dict):
            return node
        if len(node.value) == 1:
            ((name, given),) = node.value.items()
            options = {} if given.value is None else given.value
            if name in self.registry and isinstance(options, dict) and "kind" not in options:
                kind = YamlNode(name, path, given.key, given.key)
                moved = {key: option.moved(f"{node.path}.{key}") for key, option in options.items()}
                return replace(node, value={"kind": kind} | moved)
        return replace(node, value={"kind": node.child("kind", self.default)} | node.value)

    def children(self, node: YamlNode) -> Mapping[str, Schema]:
        entry = self._entry(node)
        return {"kind": Schema(), **(mapping_schema(entry).properties if entry else {})}

    def with_child(self, node: YamlNode, name: str, child: YamlNode) -> YamlNode:
        options = node.value
        if name == "kind" and child.value != options["kind"].value:
            # The options in the file are the old kind's; what is set beside the kind stays.
            options = {key: n for key, n in options.items() if n.place.source.is_override}
        return replace(node, value=options | {name: child})

    def _validate(self, node: YamlNode, problems: Problems) -> YamlNode:
        normal = self.normalize(node)
        if not isinstance(normal.value, dict):
            message = f"{node.path} must be the name of one {self.noun}, not {node}"
            problems.add(node.place, message, "", self.registry)
            return node
        kind = normal.value["kind"]
        entry = self._entry(normal)
        if entry is None:
            if kind.value is not BROKEN:
                word = kind.value if isinstance(kind.value, str) else ""
                what = quoted(word) if word else str(kind)
                message = f"{what} is no {self.noun}"
                problems.add(kind.place, message, word, self.registry, self.noun)
            return node
        schema = mapping_schema(entry)
        options = {name: option for name, option in normal.value.items() if name != "kind"}
        for name in [name for name in options if name not in schema.properties]:
            if message := self._elsewhere(name, node.path, kind):
                problems.add(options.pop(name).key, message)
        owner = node.path if kind.implied else kind.value  # of a kind that somebody has written
        entries = schema.validate_entries(owner, node, options, problems, ["kind"])
        return replace(node, value={"kind": kind, **entries})

    def _elsewhere(self, name: str, path: str, kind: YamlNode) -> str:
        """Return what to say of a key that is a kind's name, or an option of other kinds."""
        if name in self.registry and kind.implied:
            return f"{quoted(name)} is a kind of {self.noun}: write {{kind: {name}, OPTION: VALUE}}"
        owners = [k for k, e in self.registry.items() if name in mapping_schema(e).properties]
        if not owners:
            return ""
        others = f"{', '.join(owners)} {'has' if len(owners) == 1 else 'have'} it"
        if kind.implied:
            return f"{path} names no kind, and {quoted(name)} is not for all: {others}"
        return f"unknown key {quoted(name)} in {kind.value}; {others}"

    def keys(self, path: str) -> Iterator[str]:
        names = [name for e in self.registry.values() for name in mapping_schema(e).properties]
        yield from dict.fromkeys(f"{path}.{name}" for name in ("kind", *names))

    def _entry(self, node: YamlNode) -> type | None:
        kind = node.value["kind"].value if isinstance(node.value, dict) else None
        return self.registry.get(kind) if isinstance(kind, str) else None

    def json_schema(self) -> JsonSchema:
        choices: list[JsonSchema] = [{"enum": list(self.registry)}]
        for name, entry in self.registry.items():
            choice = mapping_schema(entry).mapping_json_schema()
            choice["properties"] = {"kind": {"const": name}} | choice["properties"]
            if name != self.default:
                choice["required"] = ["kind", *choice["required"]]
            choices.append(choice | {"description": summary(entry)})
            choices.append(nested(name, mapping_schema(entry)))
        return {"anyOf": choices}


def nested(name: str, schema: MappingSchema) -> JsonSchema:
    """Return the JSON Schema of `name: {options}`."""
    options = schema.mapping_json_schema() if schema.required else schema.json_schema()
    return {
        "type": "object",
        "properties": {name: options},
        "required": [name],
        "additionalProperties": False,
    }


Keys = Sequence[tuple[str, Place]]  # each with its place


def assign(
    schema: Schema, node: YamlNode, keys: Keys, new: YamlNode, problems: Problems
) -> YamlNode:
    """Return `node`, short forms on the way written out, with `new` where `keys` lead.

    What `new` itself must be is left to `validate`.
    """
    return _update(schema, node, keys, lambda old: new, problems)


def insert(
    schema: Schema, node: YamlNode, keys: Keys, new: YamlNode, problems: Problems
) -> YamlNode:
    """Return `node` with `new`, one item or a list of some, in the list that `keys` lead to.

    They stand at its end or, if the last key is a number, in front of the item of that number.
    """
    *path, (name, place) = keys
    position = int(name) if path and name.isdecimal() else None

    def inserted(old: YamlNode) -> YamlNode:
        items = [] if old.value in ({}, None) else old.value
        if not isinstance(items, list):
            return _no_list(old, place, problems)
        if position is not None and position > len(items):
            return _no_entry(old, name, place, problems)
        at = len(items) if position is None else position
        more = new.value if isinstance(new.value, list) else [new]
        return replace(old, value=[*items[:at], *more, *items[at:]]).moved(old.path)

    return _update(schema, node, keys if position is None else path, inserted, problems)


def remove(
    schema: Schema, node: YamlNode, keys: Keys, which: YamlNode, problems: Problems
) -> YamlNode:
    """Return `node` without some items of the list that `keys` lead to: one number or a list."""

    def shortened(old: YamlNode) -> YamlNode:
        if not isinstance(old.value, list):
            return _no_list(old, keys[-1][1], problems)
        numbers = which.value if isinstance(which.value, list) else [which]
        for number in numbers:
            if type(number.value) is not int:
                message = f"what is removed must be the number of an entry, not {number}"
                problems.add(number.place, message)
            elif not 0 <= number.value < len(old.value):
                _no_entry(old, str(number.value), number.place, problems)
        gone = {number.value for number in numbers if type(number.value) is int}
        kept = [item for index, item in enumerate(old.value) if index not in gone]
        place = old.place if kept else which.place  # that is to blame for an empty list
        return replace(old, value=kept, place=place).moved(old.path)

    return _update(schema, node, keys, shortened, problems)


def _no_list(node: YamlNode, place: Place, problems: Problems) -> YamlNode:
    if node.value is not BROKEN:
        what = f"is {node}" if node.value else "has nothing in it"
        problems.add(place, f"{node.path} {what}: only a list has entries to add or remove")
    return node


def _no_entry(node: YamlNode, name: str, place: Place, problems: Problems) -> YamlNode:
    there = f"there are {len(node.value)}, counted from 0"
    problems.add(place, f"{node.path} has no entry {quoted(name)}; {there}")
    return node


def _update(
    schema: Schema,
    node: YamlNode,
    keys: Keys,
    change: Callable[[YamlNode], YamlNode],
    problems: Problems,
) -> YamlNode:
    """Return `node`, short forms on the way written out, changed where `keys` lead."""
    (name, place), *rest = keys
    node = schema.normalize(node)
    children = schema.children(node)
    if isinstance(node.value, list):
        if name not in children:
            return _no_entry(node, name, place, problems)
        old = node.value[int(name)]
    elif isinstance(node.value, dict):
        old = node.value.get(name)
        if old is None or old.value is None:  # what is made on the way is the override's
            old = YamlNode({}, node.child(name).path, place, place)
    else:
        if node.value is not BROKEN:
            problems.add(place, f"{node.path} is {node}: there is no {quoted(name)} in it")
        return node
    if rest and name in children:
        new = _update(children[name], old, rest, change, problems)
    else:  # or an unknown key, which `validate` reports
        new = change(old)
    return schema.with_child(node, name, replace(new, key=old.key))


def mapping_schema(kind: Any) -> MappingSchema:
    """Return the schema of a dataclass."""
    return _mapping_schema(kind)


# As a decorator of the function it would demand hashable arguments, says mypy.
_mapping_schema = cache(MappingSchema)


def schema_of(hint: Any) -> Schema:
    """Return the schema that a type hint stands for."""
    kind, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    for extra in extras:
        if isinstance(extra, Schema):
            return extra
    if NoneType in get_args(kind):
        return OptionalSchema(schema_of(get_args(kind)[0]))
    if kind is Initializer:
        return KindSchema(Initializer, "he_normal")
    if is_dataclass(kind):
        return mapping_schema(kind)
    if kind is bool:
        return SwitchSchema()
    limits = next((extra for extra in extras if isinstance(extra, Range)), Range())
    return NumberSchema(kind, limits)


def _default(key: Field[Any]) -> Any:
    """Return the default of a dataclass's field as a config would say it, or MISSING."""
    value = key.default if key.default_factory is MISSING else key.default_factory()
    if isinstance(value, Choice):
        return value.kind
    if isinstance(value, Initializer):
        return kind_of(INITIALIZERS, value)
    return {} if is_dataclass(value) else value


def _description(hint: Any) -> JsonSchema:
    """Return the part of a JSON Schema that describes a field in words."""
    texts = [part for part in get_args(hint) if isinstance(part, str)]
    return {"description": texts[0]} if texts else {}


def summary(kind: type) -> str:
    """Return the first line of a class's docstring."""
    return (kind.__doc__ or "").partition("\n")[0]
