"""Names in a config: that of a run, and that of a data set, which may be a path."""

from __future__ import annotations

import os
import re
from dataclasses import replace

from nnctl.config.schema import JsonSchema, TextSchema
from nnctl.config.yaml_tree import Problems, YamlNode, quoted
from nnctl.datasets.catalogue import CATALOGUE
from nnctl.files import SEPARATORS, has_separator


class RunNameSchema(TextSchema):
    """The name of a run, which becomes that of a folder."""

    PATTERN = r"(?!\.+$)[A-Za-z0-9._-]{1,100}"
    MEANING = "1 to 100 letters, digits, dots, underscores and dashes"

    @classmethod
    def allows(cls, name: str) -> bool:
        """Return whether a run may have this name."""
        return bool(re.fullmatch(cls.PATTERN, name))

    def validate_text(self, node: YamlNode, problems: Problems) -> YamlNode:
        if not self.allows(node.value):
            problems.add(node.place, f"{node.path} must be {self.MEANING}, not {node}")
        return node

    def json_schema(self) -> JsonSchema:
        return {"type": "string", "pattern": f"^{self.PATTERN}$"}


class DatasetSchema(TextSchema):
    """A data set by name, or a folder: a path with a separator, absolute once it is read."""

    def validate_text(self, node: YamlNode, problems: Problems) -> YamlNode:
        name = node.value
        if not has_separator(name):
            if name not in CATALOGUE:
                message = f"{quoted(name)} is no data set (nor is it a path: that has a separator)"
                problems.add(node.place, message, name, CATALOGUE)
            return node
        path, folder = os.path.expanduser(name), node.place.source.folder
        try:
            if folder is not None and "\0" not in path and not os.path.isabs(path):
                path = os.path.realpath(folder / path)
            os.fsencode(path)
        except UnicodeEncodeError as error:
            message = f"{node.path} has characters that no path can have in this locale"
            problems.add(node.place, f"{message} ({error.encoding})")
            return node
        if "\0" in path or path.encode("utf-8", "replace").decode() != path:
            message = f"{node.path} must be a path that can be written in UTF-8"
            problems.add(node.place, f"{message}, not {quoted(path)}")
        return replace(node, value=path)

    def json_schema(self) -> JsonSchema:
        separators = "".join(map(re.escape, SEPARATORS))
        return {
            "anyOf": [{"enum": list(CATALOGUE)}, {"type": "string", "pattern": f"[{separators}]"}]
        }
