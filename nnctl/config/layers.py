"""The list of layers in a config, and the short forms that a layer has there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import NoneType

from nnctl.config.schema import JsonSchema, KindSchema, Schema, mapping_schema, nested, summary
from nnctl.config.yaml_tree import BROKEN, Problems, YamlNode, quoted
from nnctl.nn.initializers import Initializer
from nnctl.nn.layers import LAYERS

MAX_LAYERS = 500  # so that a resolved config stays small


class LayerSchema(Schema):
    """A layer: `name`, `name: {options}`, or `name: value` of the option it is known by."""

    def normalize(self, node: YamlNode) -> YamlNode:
        if isinstance(node.value, str):
            return replace(node, value={node.value: replace(node.child(node.value), value=None)})
        if isinstance(node.value, dict) and len(node.value) == 1:
            ((name, given),) = node.value.items()
            short = short_option(name)
            if short and not isinstance(given.value, dict | NoneType):
                option = replace(given, path=given.child(short).path)
                return replace(node, value={name: replace(given, value={short: option})})
        return node

    def children(self, node: YamlNode) -> Mapping[str, Schema]:
        names = node.value if isinstance(node.value, dict) else ()
        return {name: mapping_schema(LAYERS[name]) for name in names if name in LAYERS}

    def _validate(self, node: YamlNode, problems: Problems) -> YamlNode:
        normal = self.normalize(node)
        if not isinstance(normal.value, dict) or not normal.value:
            problems.add(node.place, f"{node.path} must be one layer, not {node}", "", LAYERS)
            return node
        (name, given), *more = normal.value.items()
        if name not in LAYERS:
            problems.add(given.key, f"{quoted(name)} is no layer", name, LAYERS, "layer")
            return node
        schema = mapping_schema(LAYERS[name])
        if more:
            other, at = more[0]
            set_here = at.key.source.is_override  # where nothing is indented
            if other in schema.properties:
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
            options = f"; write {name}: {{OPTION: VALUE}}" if schema.properties else ""
            problems.add(given.place, f"{name} takes no value{options}", "", schema.properties)
            return node
        return replace(normal, value={name: schema.validate(given, problems)})

    def json_schema(self) -> JsonSchema:
        names = [name for name, layer in LAYERS.items() if not mapping_schema(layer).required]
        choices: list[JsonSchema] = [{"enum": names}]
        for name, layer in LAYERS.items():
            schema = mapping_schema(layer)
            choice = nested(name, schema)
            if short := short_option(name):
                options = [schema.properties[short].json_schema(), choice["properties"][name]]
                choice["properties"] = {name: {"anyOf": options}}
            choices.append(choice | {"description": summary(layer)})
        return {"anyOf": choices}


class NetworkSchema(Schema):
    """A list of layers."""

    entry = LayerSchema()

    def children(self, node: YamlNode) -> Mapping[str, Schema]:
        items = node.value if isinstance(node.value, list) else ()
        return {str(index): self.entry for index in range(len(items))}

    def with_child(self, node: YamlNode, name: str, child: YamlNode) -> YamlNode:
        if not isinstance(node.value, list):  # which `validate` reports
            return super().with_child(node, name, child)
        items = list(node.value)
        items[int(name)] = child
        return replace(node, value=items)

    def _validate(self, node: YamlNode, problems: Problems) -> YamlNode:
        if not isinstance(node.value, list):
            problems.add(node.place, f"{node.path} must be a list of layers, not {node}")
            return node
        if not 1 <= len(node.value) <= MAX_LAYERS:
            message = f"{node.path} must have 1 to {MAX_LAYERS} layers, not {len(node.value)}"
            problems.add(node.place, message)
        return replace(node, value=[self.entry.validate(item, problems) for item in node.value])

    def keys(self, path: str) -> Iterator[str]:
        for name, layer in LAYERS.items():
            yield from mapping_schema(layer).keys(f"{path}.N.{name}")

    def json_schema(self) -> JsonSchema:
        return {
            "type": "array",
            "items": self.entry.json_schema(),
            "minItems": 1,
            "maxItems": MAX_LAYERS,
        }


def with_initializer(network: YamlNode, initializer: YamlNode) -> YamlNode:
    """Return a list of layers in which those that name no initializer have this one."""
    if not isinstance(network.value, list):
        return network
    return replace(network, value=[_initialized(layer, initializer) for layer in network.value])


def _initialized(layer: YamlNode, initializer: YamlNode) -> YamlNode:
    normal = NetworkSchema.entry.normalize(layer)
    if not isinstance(normal.value, dict) or len(normal.value) != 1:
        return layer
    ((name, given),) = normal.value.items()
    options = {} if given.value is None else given.value
    if name not in LAYERS or not isinstance(options, dict):
        return layer
    missing = {
        option: initializer.moved(given.child(option).path)
        for option, schema in mapping_schema(LAYERS[name]).properties.items()
        if isinstance(schema, KindSchema) and schema.base is Initializer and option not in options
    }
    if not missing:
        return layer
    return replace(normal, value={name: replace(given, value=options | missing)})


def short_option(layer: str) -> str | None:
    """Return the option that `name: value` gives: the only one, or the only required one."""
    if layer not in LAYERS:
        return None
    schema = mapping_schema(LAYERS[layer])
    candidates = schema.required or list(schema.properties)
    return candidates[0] if len(candidates) == 1 else None
