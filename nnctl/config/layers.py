"""The list of layers in a config, and the short forms that a layer has there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import NoneType

from nnctl.config.schema import Rule, Schema, record, summary
from nnctl.config.yaml_tree import BROKEN, Node, Problems, quoted
from nnctl.nn.layers import LAYERS

MAX_LAYERS = 500  # so that a resolved config stays small


class LayerEntry(Rule):
    """A layer: `name`, `name: {options}`, or `name: value` of the option it is known by."""

    def normal(self, node: Node) -> Node:
        if isinstance(node.value, str):
            return replace(node, value={node.value: replace(node.child(node.value), value=None)})
        if isinstance(node.value, dict) and len(node.value) == 1:
            ((name, given),) = node.value.items()
            short = short_option(name)
            if short and not isinstance(given.value, dict | NoneType):
                option = replace(given, path=given.child(short).path)
                return replace(node, value={name: replace(given, value={short: option})})
        return node

    def below(self, node: Node) -> Mapping[str, Rule]:
        names = node.value if isinstance(node.value, dict) else ()
        return {name: record(LAYERS[name]) for name in names if name in LAYERS}

    def expand(self, node: Node, problems: Problems) -> Node:
        normal = self.normal(node)
        if not isinstance(normal.value, dict) or not normal.value:
            problems.add(node.place, f"{node.path} must be one layer, not {node}", "", LAYERS)
            return node
        (name, given), *more = normal.value.items()
        if name not in LAYERS:
            problems.add(given.key, f"{quoted(name)} is no layer", name, LAYERS)
            return node
        rule = record(LAYERS[name])
        if more:
            other, at = more[0]
            set_here = at.key.source.is_override  # where nothing is indented
            if other in rule.rules:
                message = f"{quoted(other)} must be indented further, below {name}"
                if set_here:
                    message = f"{quoted(other)} is an option of {name}: {node.path}.{name}.{other}"
            else:
                advice = "a layer of its own begins with a dash"
                if set_here:
                    advice = f"--set {node.path}=LAYER replaces it"
                message = f"{node.path} is {name} already; {advice}"
            problems.add(at.key, message)
            return node
        if not isinstance(given.value, dict | NoneType) and given.value is not BROKEN:
            options = f"; write {name}: {{OPTION: VALUE}}" if rule.rules else ""
            problems.add(given.place, f"{name} takes no value{options}", "", rule.rules)
            return node
        return replace(normal, value={name: rule.read(given, problems)})

    def schema(self) -> Schema:
        names = [name for name, layer in LAYERS.items() if not record(layer).required]
        choices: list[Schema] = [{"enum": names}]
        for name, layer in LAYERS.items():
            rule = record(layer)
            options = rule.mapping_schema() if rule.required else rule.schema()
            if short := short_option(name):
                options = {"anyOf": [rule.rules[short].schema(), options]}
            choices.append(
                {
                    "type": "object",
                    "properties": {name: options},
                    "required": [name],
                    "additionalProperties": False,
                    "description": summary(layer),
                }
            )
        return {"anyOf": choices}


class Layers(Rule):
    """A list of layers."""

    entry = LayerEntry()

    def below(self, node: Node) -> Mapping[str, Rule]:
        items = node.value if isinstance(node.value, list) else ()
        return {str(index): self.entry for index in range(len(items))}

    def put(self, node: Node, name: str, child: Node) -> Node:
        if not isinstance(node.value, list):  # which `read` tells
            return super().put(node, name, child)
        items = list(node.value)
        items[int(name)] = child
        return replace(node, value=items)

    def expand(self, node: Node, problems: Problems) -> Node:
        if not isinstance(node.value, list):
            problems.add(node.place, f"{node.path} must be a list of layers, not {node}")
            return node
        if not 1 <= len(node.value) <= MAX_LAYERS:
            message = f"{node.path} must have 1 to {MAX_LAYERS} layers, not {len(node.value)}"
            problems.add(node.place, message)
        return replace(node, value=[self.entry.read(item, problems) for item in node.value])

    def schema(self) -> Schema:
        return {
            "type": "array",
            "items": self.entry.schema(),
            "minItems": 1,
            "maxItems": MAX_LAYERS,
        }


def short_option(layer: str) -> str | None:
    """Return the option that `name: value` gives: the only one, or the only required one."""
    if layer not in LAYERS:
        return None
    rule = record(LAYERS[layer])
    candidates = rule.required or list(rule.rules)
    return candidates[0] if len(candidates) == 1 else None
