"""Configs: YAML text in, typed and complete settings out, errors that show the place.

The rest of nnctl asks for settings here and need not know YAML, short forms or overrides.
"""

from __future__ import annotations

from nnctl.config.checks import check_shapes, warnings, with_counts
from nnctl.config.loading import (
    BundledConfig,
    bundled_config,
    bundled_configs,
    differences,
    dump_yaml,
    json_schema,
    leaves,
    load_augmentation,
    load_settings,
    read_text,
    settings_from_dict,
    to_yaml,
    with_name,
    with_values,
)
from nnctl.config.schema import Choice
from nnctl.config.settings import (
    DataSettings,
    EarlyStopping,
    Settings,
    TrainingSettings,
    build,
    to_dict,
)

__all__ = [
    "BundledConfig",
    "Choice",
    "DataSettings",
    "EarlyStopping",
    "Settings",
    "TrainingSettings",
    "build",
    "bundled_config",
    "bundled_configs",
    "check_shapes",
    "differences",
    "dump_yaml",
    "json_schema",
    "leaves",
    "load_augmentation",
    "load_settings",
    "read_text",
    "settings_from_dict",
    "to_dict",
    "to_yaml",
    "warnings",
    "with_counts",
    "with_name",
    "with_values",
]
