"""A tiny data set, and configs for it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nnctl.config import Settings, settings_from_dict
from nnctl.datasets import DataSet, Samples


def _samples(count: int) -> Samples:
    """Images of 4 x 3 pixels in five classes that can be told apart."""
    rng = np.random.default_rng(count)
    prototypes = np.random.default_rng(5).integers(0, 200, (5, 12))
    labels = (np.arange(count) % 5).astype(np.uint8)
    images = prototypes[labels] + rng.integers(0, 56, (count, 12))
    return Samples(images.astype(np.uint8), labels)


@pytest.fixture(scope="session")
def tiny_data() -> DataSet:
    return DataSet(
        name="./tiny",
        train=_samples(120),
        test=_samples(30),
        image_shape=(4, 3),
        class_names=None,
        sha256={"train-images-idx3-ubyte": "0" * 64, "t10k-images-idx3-ubyte": "1" * 64},
    )


@pytest.fixture(scope="session")
def tiny_settings() -> Callable[..., Settings]:
    """Return settings for the tiny data set; `changes` replace keys."""

    def make(**changes: Any) -> Settings:
        plain: dict[str, Any] = {
            "name": "tiny",
            "data": {"dataset": "./tiny", "validation": 40},
            "network": [{"affine": 6}, "relu", {"affine": 5}],
            "optimizer": {"kind": "adam"},
            "training": {"epochs": 3, "batch_size": 25},
        }
        for key, value in changes.items():
            merged = isinstance(value, dict) and key in ("data", "training")
            plain[key] = {**plain[key], **value} if merged else value
        return settings_from_dict(plain)

    return make
