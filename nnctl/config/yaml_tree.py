"""YAML text as a tree of nodes that know where they stand, and errors that show the place.

Hides libyaml. Its parser is asked for one event at a time, for its composer crashes the process
on deep nesting, knows no duplicate keys and expands aliases. Plain scalars are read by the rules
of YAML 1.2, for libyaml's users follow those of 1.1, where `1e-3` is a word and `no` is false.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import yaml

from nnctl.config.words import hint
from nnctl.errors import ConfigError, pointed, printable

MAX_BYTES = 64 * 1024
MAX_DEPTH = 16
MAX_PROBLEMS = 20  # are reported at once
MAX_WIDTH = 90  # characters of a word that are shown

LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # what libyaml counts as one
FORBIDDEN = yaml.reader.Reader.NON_PRINTABLE  # control characters and the like

# The core schema of YAML 1.2; more than 40 digits are as good as infinite.
WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
INTEGER = re.compile(r"[-+]?[0-9]{1,40}|0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

BROKEN = object()  # the value of a node whose problem has been reported


@dataclass(frozen=True, eq=False)
class SourceText:
    """A text and where it came from."""

    label: str  # how errors name it: a path, <stdin>, --set KEY; empty: not at all
    text: str = ""
    folder: Path | None = None  # what relative paths in it start from; None: they stay relative
    is_override: bool = False

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the text."""
        return LINE_BREAK.split(self.text)

    def place(self, index: int) -> Place:
        """Return the place of the character at `index`."""
        before = LINE_BREAK.split(self.text[:index])
        return Place(self, len(before) - 1, len(before[-1]))


@dataclass(frozen=True)
class Place:
    """A position in a source; `line` and `column` count from 0."""

    source: SourceText
    line: int = 0
    column: int = 0

    @property
    def text(self) -> str:
        """The whole line; empty behind the last one."""
        return "".join(self.source.lines[self.line : self.line + 1])

    @property
    def order(self) -> tuple[bool, int, int]:
        """What to sort places by: the file's, top to bottom, then those of overrides."""
        override = self.source.is_override
        return override, 0 if override else self.line, 0 if override else self.column

    def show(self, message: str) -> str:
        """Return `FILE:LINE:COLUMN: message`, the line itself and a caret below the column."""
        if not (label := printable(self.source.label)):
            return message
        if not self.source.is_override:
            label += f":{self.line + 1}:{self.column + 1}"
        if not (line := self.text).strip():
            return f"{label}: {message}"
        return f"{label}: {message}\n{pointed(line, self.column)}"


@dataclass(frozen=True)
class YamlNode:
    """A scalar, a list of nodes or a dictionary of nodes.

    `path` leads to it, as in `--set`; `key` is where the key stands that has it as its value.
    What is `implied` nobody has written.
    """

    value: Any
    path: str
    place: Place
    key: Place
    implied: bool = False

    def child(self, name: object, value: Any = None) -> YamlNode:
        """Return an implied node below this one: it stands where this one does."""
        path = f"{self.path}.{name}" if self.path else str(name)
        return replace(node_of(value, path, self.place), implied=True)

    def walk(self) -> Iterator[YamlNode]:
        """Yield this node and all below it."""
        yield self
        below = self.value.values() if isinstance(self.value, dict) else self.value
        if isinstance(self.value, dict | list):
            for node in below:
                yield from node.walk()

    def moved(self, path: str) -> YamlNode:
        """Return the same node as the value at another path."""
        value = self.value
        if isinstance(value, dict):
            value = {name: node.moved(f"{path}.{name}") for name, node in value.items()}
        elif isinstance(value, list):
            value = [node.moved(f"{path}.{index}") for index, node in enumerate(value)]
        return replace(self, value=value, path=path)

    def plain(self) -> Any:
        """Return the value without places."""
        if isinstance(self.value, dict):
            return {name: node.plain() for name, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def __str__(self) -> str:
        """Describe the value, as in "must be a number, not the word 'fast'"."""
        match self.value:
            case dict():
                return "a mapping"
            case list():
                return "a list"
            case None:
                return "empty"
            case bool():
                return str(self.value).lower()
            case str():
                return f"the word {quoted(self.value)}"
        return cut(str(self.value))


def node_of(value: Any, path: str, place: Place, depth: int = MAX_DEPTH) -> YamlNode:
    """Return a node for plain `value`; what is nested deeper than a config can be is `BROKEN`."""
    if isinstance(value, dict | list | tuple):
        if not depth:
            return YamlNode(BROKEN, path, place, place)
        items = value.items() if isinstance(value, dict) else enumerate(value)
        prefix = f"{path}." if path else ""
        below = {str(n): node_of(v, f"{prefix}{n}", place, depth - 1) for n, v in items}
        value = below if isinstance(value, dict) else list(below.values())
    return YamlNode(value, path, place, place)


@dataclass
class Problems:
    """What is wrong with a config, collected to be reported together."""

    keys: Sequence[str] = ()  # the full paths of all there are, for those that stand elsewhere
    found: list[tuple[Place, str, str, tuple[str, ...], str]] = field(default_factory=list)

    def add(
        self,
        place: Place,
        message: str,
        wrong: str = "",
        valid: Iterable[str] = (),
        used_as: str = "",
    ) -> None:
        """Note a problem; with a name that is `wrong`, the `hint` is added that it deserves."""
        self.found.append((place, message, wrong, tuple(valid), used_as))

    def fail(self, place: Place, message: str) -> NoReturn:
        """Note a problem that nothing can be read behind, and raise all."""
        self.add(place, message)
        self.check()
        raise AssertionError

    def check(self) -> None:
        """Raise a `ConfigError` that lists all problems in the order of the text, if any."""
        if not self.found:
            return
        self.found.sort(key=lambda problem: problem[0].order)
        lines = [
            place.show(message + hint(wrong, valid, used_as, self.keys if used_as == "key" else ()))
            for place, message, wrong, valid, used_as in self.found[:MAX_PROBLEMS]
        ]
        if (more := len(self.found) - MAX_PROBLEMS) > 0:
            lines.append(f"... and {more} more")
        raise ConfigError("\n".join(lines))


def quoted(text: str) -> str:
    """Return a word of the file in quotes, cut if it is very long.

    >>> quoted("fast")
    "'fast'"
    """
    return f"'{printable(cut(text))}'"


def cut(text: str) -> str:
    """Return `text`, cut if it is very long."""
    return text if len(text) <= MAX_WIDTH else f"{text[:MAX_WIDTH]}..."


def decode(data: bytes, label: str, folder: Path) -> SourceText:
    """Return the text of a file; a byte order mark is no part of it.

    Raises:
        ConfigError: it is too large, or not UTF-8.

    """
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{printable(label)}: this is more than the 64 KiB a config may have")
    try:
        return SourceText(label, data.decode("utf-8-sig"), folder)
    except UnicodeDecodeError as error:
        source = SourceText(label, data.decode("utf-8-sig", "replace"), folder)
        before = data[: error.start].decode("utf-8-sig")
        message = f"byte 0x{data[error.start]:02x} is not UTF-8; is this a text file?"
        Problems().fail(source.place(len(before)), message)


def parse(source: SourceText, problems: Problems, path: str = "") -> YamlNode:
    """Return the tree of a source that is to be the value at `path`.

    Raises:
        ConfigError: it isn't YAML, or is nested too deeply; what can be read over, such as
            aliases and duplicate keys, is only added to `problems`.

    """
    if wrong := FORBIDDEN.search(source.text):
        message = f"character U+{ord(wrong.group()):04X} is not allowed in YAML"
        problems.fail(source.place(wrong.start()), message)
    try:
        return _Parser(source, problems).document(path)
    except yaml.MarkedYAMLError as error:
        marks = [mark for mark in (error.problem_mark, error.context_mark) if mark]
        places = [Place(source, mark.line, mark.column) for mark in marks]
        # What never ended is shown where it began, not at the end of the file.
        place = next((place for place in places if place.text.strip()), Place(source))
        message = ", ".join(printable(part) for part in (error.context, error.problem) if part)
        if "\t" in place.text[: place.column + 1]:
            message += "; indent with spaces, not with tabs"
        problems.fail(place, message)
    except yaml.YAMLError as error:
        problems.fail(Place(source), f"this is not YAML: {printable(error)}")


class _Parser:
    """Builds nodes from libyaml's events."""

    def __init__(self, source: SourceText, problems: Problems) -> None:
        self.source = source
        self.problems = problems
        self.events = yaml.parse(source.text, Loader=yaml.CSafeLoader)

    def document(self, path: str) -> YamlNode:
        """Return the root of the only document; an empty one holds None."""
        place = Place(self.source)
        root = YamlNode(None, path, place, place)
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self.problems.fail(self._place(event), "a second document; only one is read")
                event = next(self.events)
                root = self._node(event, root.path, self._place(event), MAX_DEPTH)
        return root

    def _place(self, event: Any) -> Place:
        return Place(self.source, event.start_mark.line, event.start_mark.column)

    def _node(self, event: Any, path: str, key: Place, depth: int) -> YamlNode:
        """Return the node that begins with `event`."""
        place = self._place(event)
        node = YamlNode(BROKEN, path, place, key)
        if not depth:
            self.problems.fail(place, f"this is nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            self.problems.add(place, "aliases are not allowed; write the value out")
            return node
        value: Any
        if isinstance(event, yaml.SequenceStartEvent):
            value = self._items(node, depth)
        elif isinstance(event, yaml.MappingStartEvent):
            value = self._entries(node, depth)
        else:
            value = resolve(event.value) if event.implicit[0] else event.value
        if event.anchor:
            self.problems.add(place, "anchors are not allowed; write the value out where it's used")
        if event.tag:
            self.problems.add(place, f"tags such as {quoted(event.tag)} are not allowed")
            return node
        return replace(node, value=value)

    def _items(self, parent: YamlNode, depth: int) -> list[YamlNode]:
        items: list[YamlNode] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            path = parent.child(len(items)).path
            items.append(self._node(event, path, self._place(event), depth - 1))
        return items

    def _entries(self, parent: YamlNode, depth: int) -> dict[str, YamlNode]:
        entries: dict[str, YamlNode] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            place = self._place(event)
            key = self._node(event, parent.path, place, depth - 1)
            name = event.value if isinstance(event, yaml.ScalarEvent) else None
            if isinstance(key.value, dict | list):
                self.problems.add(place, "a key must be a word")
            path = parent.child(name).path
            node = self._node(next(self.events), path, place, depth - 1)
            if name in entries:
                first = entries[name].key.line + 1
                self.problems.add(place, f"{quoted(name)} is here twice, first in line {first}")
            elif name is not None:
                entries[name] = node
        return entries


def resolve(text: str) -> bool | int | float | str | None:
    """Return what a plain scalar means in the core schema of YAML 1.2.

    >>> [resolve(text) for text in ("1e-3", "010", "0x1f", "1:30", "no", "~", "1_000")]
    [0.001, 10, 31, '1:30', 'no', None, '1_000']
    """
    if text in WORDS:
        return WORDS[text]
    if INTEGER.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if FLOAT.fullmatch(text):
        return float(text)
    if NOT_FINITE.fullmatch(text):
        return float(text.replace(".", "").lower())
    return text
