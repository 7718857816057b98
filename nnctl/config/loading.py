"""From a config's name to settings, and from settings back to text."""

from __future__ import annotations

import difflib
import errno
import operator
import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from nnctl.config.layers import with_initializer
from nnctl.config.names import RunNameSchema
from nnctl.config.schema import assign, insert, mapping_schema, remove
from nnctl.config.settings import Settings, augmentation, from_dict, to_dict
from nnctl.config.words import hint
from nnctl.config.yaml_tree import (
    BROKEN,
    MAX_BYTES,
    Place,
    Problems,
    SourceText,
    YamlNode,
    decode,
    node_of,
    parse,
    quoted,
    resolve,
)
from nnctl.datasets.augmentation import Augmentation
from nnctl.datasets.catalogue import CATALOGUE
from nnctl.errors import ConfigError, UsageError, printable
from nnctl.files import (
    as_system_failure,
    bundled,
    has_separator,
    is_folder,
    status_of,
    write_atomically,
)

STANDARD_INPUT = "-"
SUFFIX = ".yaml"

# What is wrong with a path, rather than with the system.
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)

_OPERATIONS = {"+": insert, "-": remove}  # at the end of an override's path


def load_settings(config: str, overrides: Sequence[tuple[str, str]] = ()) -> Settings:
    """Return the settings of a config file, a bundled config, or `-` for standard input.

    `overrides` are pairs of a key's path, as in `optimizer.learning_rate`, and YAML text; they
    apply in order.

    Raises:
        ConfigError: there is no such config, or it is wrong; lists all that is wrong with it.
        SystemFailure: it can't be read.

    """
    source, name = _read(config)
    problems = _problems()
    root = _override(parse(source, problems), overrides, problems)
    root = mapping_schema(Settings).normalize(root)
    if isinstance(root.value, dict) and "name" not in root.value:
        named = root.child("name", name)
        if not RunNameSchema.allows(name):
            problems.add(
                root.place,
                f"the run would be named {quoted(name)} after the file, but a name must be "
                f"{RunNameSchema.MEANING}; give it a `name:`",
            )
            named = replace(named, value=BROKEN)
        root = replace(root, value={"name": named} | root.value)
    return _settings(root, problems)


def load_augmentation(text: str, option: str) -> tuple[Augmentation, int]:
    """Return the augmentation that the text of a command's `option` asks for, and the seed.

    The text is YAML as `data.augment` would be, seed 0; or what `load_settings` takes: then both
    are that config's.

    Raises:
        ConfigError: it is wrong, or the config has no augmentation.

    """
    problems = Problems()
    root = parse(SourceText(option, text, is_override=True), problems, "data.augment")
    if isinstance(root.value, str):
        settings = load_settings(text)
        if settings.data.augment is None:
            raise ConfigError(
                f"{option} {printable(text)}: this config has no data.augment\n"
                f"name another one, or say how much: {option} '{{shift: 2}}'"
            )
        return settings.data.augment, settings.seed
    full = mapping_schema(Augmentation).validate(root, problems)
    problems.check()
    return augmentation(full.plain()), 0


def settings_from_dict(
    plain: Mapping[str, Any], overrides: Sequence[tuple[str, str]] = ()
) -> Settings:
    """Return the settings that `to_dict` made plain, after checking all of them.

    `overrides` are those of `load_settings`.

    Raises:
        ConfigError: they are wrong.

    """
    root, problems = node_of(dict(plain), "", Place(SourceText(""))), _problems()
    return _settings(_override(root, overrides, problems), problems)


def to_yaml(settings: Settings) -> str:
    """Return the config that gives exactly these settings again, a key a line."""
    return dump_yaml({key: _shortened(value) for key, value in to_dict(settings).items()})


def dump_yaml(plain: Mapping[str, Any]) -> str:
    """Return a mapping of plain values as YAML that `parse` reads back, a key a line."""
    return "".join(
        yaml.dump(
            {key: value},
            Dumper=_Dumper,
            sort_keys=False,
            # None: a layer, a parameter of a sweep, a line
            default_flow_style=None if key in ("network", "parameters") else False,
            width=-1,  # never fold
        )
        for key, value in plain.items()
    )


def _shortened(value: Any) -> Any:
    """Return plain `value` with the names of layers and choices that have no options as words."""
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((name, below), *more) = value.items()
    if not more and (name == "kind" or below == {}):
        return below or name
    return {key: _shortened(item) for key, item in value.items()}


def differences(before: Settings, after: Settings) -> list[str]:
    """Return a line such as `optimizer.learning_rate: 0.1 -> 0.05` for each that differs."""
    old, new = dict(leaves(to_dict(before))), dict(leaves(to_dict(after)))
    return [
        f"{path}: {_shown(old, path)} -> {_shown(new, path)}"
        for path in old | new
        if old.get(path, BROKEN) != new.get(path, BROKEN)
    ]


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a config."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "nnctl config",
        "description": "A network and how to train it.",
        **mapping_schema(Settings).mapping_json_schema(),
    }


@dataclass(frozen=True)
class BundledConfig:
    """A config that comes with nnctl."""

    name: str
    path: Path

    @property
    def description(self) -> str:
        """What it shows: the comment at its top."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        comment = [line.removeprefix("#").strip() for line in lines[:2] if line.startswith("#")]
        return " ".join(comment)

    def copy(self, destination: Path) -> Path:
        """Write a copy to a new file, or into a folder; return the file's path.

        Raises:
            UsageError: there is a file already.
            SystemFailure: it can't be written.

        """
        path = destination / self.path.name if is_folder(destination) else destination
        data = self.path.read_bytes()
        with as_system_failure("writing", path):
            try:
                path.open("xb").close()  # the name is ours from here on
            except FileExistsError:
                raise UsageError(f"{printable(path)}: exists already; name another DEST") from None
        try:
            write_atomically(path, data)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path


def bundled_configs() -> list[BundledConfig]:
    """Return the configs that come with nnctl, by name."""
    paths = sorted(bundled("configs").glob(f"*{SUFFIX}"))
    return [BundledConfig(path.stem, path) for path in paths]


def bundled_config(name: str) -> BundledConfig:
    """Return the bundled config of that name.

    Raises:
        ConfigError: there is none.

    """
    known = {config.name: config for config in bundled_configs()}
    if name not in known:
        near = hint(name, known)
        raise ConfigError(f"no config file {quoted(name)}, and none of that name is bundled{near}")
    return known[name]


def _read(config: str) -> tuple[SourceText, str]:
    """Return the text of a config, and the name that its run has by default."""
    if config == STANDARD_INPUT:
        if sys.stdin is None:
            raise ConfigError("--config -: standard input is closed")
        with as_system_failure("reading", Path("<stdin>")):
            return decode(sys.stdin.buffer.read(MAX_BYTES + 1), "<stdin>", Path()), "stdin"
    path, folder = Path(config), Path(config).parent
    status = None if has_separator(config) else status_of(path)
    if not has_separator(config) and (status is None or stat.S_ISDIR(status.st_mode)):
        path, folder = bundled_config(config).path, Path()
    return read_text(path, folder, "`nnctl config list` names bundled configs"), path.stem


def read_text(path: Path, folder: Path, advice: str) -> SourceText:
    """Return the text of a YAML file; relative paths in it start from `folder`.

    Raises:
        ConfigError: there is no such file, and then gives `advice`; or it is no text.
        SystemFailure: it can't be read.

    """
    with as_system_failure("reading", path):
        try:
            with open(path, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            reason = "a folder, not a file" if os.path.isdir(path) else "there is no such file"
            raise ConfigError(f"{printable(path)}: {reason}; {advice}") from None
    return decode(data, str(path), folder)


def _problems() -> Problems:
    return Problems(keys=list(mapping_schema(Settings).keys("")))


def _override(root: YamlNode, overrides: Sequence[tuple[str, str]], problems: Problems) -> YamlNode:
    """Return `root` with the value at each override's path replaced by what its text means.

    A path that ends with + or - adds to a list, or removes from it.
    """
    for path, text in overrides:
        label = f"--set {path}"
        new = parse(SourceText(label, text, Path(), is_override=True), problems, path)
        written = SourceText(label, f"{path}={text}", is_override=True)
        root = _changed(root, path, Place(written), new, problems)
    return root


def _changed(
    root: YamlNode, path: str, place: Place, new: YamlNode, problems: Problems
) -> YamlNode:
    """Return `root` with `new` where `path`, which is written at `place`, leads."""
    change = _OPERATIONS.get(path[-1:]) if path[:-1] else None
    keys: list[tuple[str, Place]] = []
    column = place.column
    for name in (path[:-1] if change else path).split("."):
        keys.append((name, replace(place, column=column)))
        column += len(name) + 1
    return (change or assign)(mapping_schema(Settings), root, keys, new, problems)


def _settings(root: YamlNode, problems: Problems) -> Settings:
    """Return the settings that a tree means, once nothing is wrong with it."""
    full = mapping_schema(Settings).validate(_initialized(root, problems), problems)
    validation, stopping = _at(full, "data", "validation"), _at(full, "training", "early_stopping")
    if validation and validation.value == 0 and stopping and stopping.value is not None:
        problems.add(
            stopping.place, f"{stopping.path} needs a validation set: {validation.path} is 0"
        )
    problems.check()
    settings = from_dict(full.plain(), {node.path: node.place for node in full.walk()})
    data, known = settings.data, CATALOGUE.get(settings.data.dataset)
    if known and (held_out := data.held_out(known.train_samples)):  # else `with_counts` may object
        settings = replace(settings, data=replace(data, validation=held_out))
    return settings


def _initialized(root: YamlNode, problems: Problems) -> YamlNode:
    """Return the tree with its `initializer` in all layers that name none."""
    network, initializer = _at(root, "network"), _at(root, "initializer")
    if network is None or initializer is None:
        return root
    separate = Problems()
    schema = mapping_schema(Settings).properties["initializer"]
    if schema.validate(initializer, separate).value is BROKEN or separate.found:
        return root  # what is wrong with it is reported once, at its own place
    initialized = with_initializer(network, initializer)
    if isinstance(network.value, list) and all(map(operator.is_, initialized.value, network.value)):
        problems.add(
            initializer.key,
            "initializer has no layer to go to: each names its own, or has no weights",
        )
    return replace(root, value=root.value | {"network": initialized})


def with_values(base: Settings, values: Sequence[YamlNode]) -> Settings:
    """Return `base` with the value at the path of each node replaced by that node, in order.

    Raises:
        ConfigError: they are wrong; shown where the nodes stand.

    """
    root, problems = node_of(to_dict(base), "", Place(SourceText(""))), _problems()
    for node in values:
        root = _changed(root, node.path, node.key, node, problems)
    return _settings(root, problems)


def with_name(settings: Settings, pattern: str) -> Settings:
    """Return `settings` with a name made of their values, as in `lr{learning_rate}-s{seed}`.

    Raises:
        ConfigError: what stands in braces is no key, or several; or a run can't have the name.

    """
    values = dict(leaves(to_dict(settings)))

    def value(match: re.Match[str]) -> str:
        key = match[1]
        paths = [path for path in values if path == key or path.endswith(f".{key}")]
        if key in values:
            paths = [key]
        if len(paths) != 1:
            names = {path.rsplit(".", 1)[-1] for path in values}
            near = paths or difflib.get_close_matches(key, [*names, *values], n=1)
            meant = f"; did you mean {' or '.join(near)}?" if near else ""
            raise ConfigError(f"--name {pattern!r}: {{{key}}} is not one key of the config{meant}")
        found = values[paths[0]]
        return f"{found:g}" if isinstance(found, float) else str(found)

    name = re.sub(r"\{([^{}]*)\}", value, pattern)
    if not RunNameSchema.allows(name):
        raise ConfigError(
            f"--name {pattern!r} gives {printable(name)!r}, but a name must be "
            f"{RunNameSchema.MEANING}"
        )
    return replace(settings, name=name)


def _at(node: YamlNode, *keys: str) -> YamlNode | None:
    """Return the node that `keys` lead to, if there is one."""
    for key in keys:
        if not isinstance(node.value, dict) or key not in node.value:
            return None
        node = node.value[key]
    return node


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of everything that has nothing below it."""
    if value and isinstance(value, dict | list):
        for name, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(below, f"{path}.{name}" if path else str(name))
    else:
        yield path, value


def _shown(values: dict[str, Any], path: str) -> str:
    if path not in values:
        return "(none)"
    value = values[path]
    return "null" if value is None else printable(value)


class _Dumper(yaml.CSafeDumper):
    """Quotes what YAML 1.2 would read as something else than text, too."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    style = None if isinstance(resolve(text), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
