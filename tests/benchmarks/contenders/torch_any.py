"""PyTorch: eager, with a fused optimizer, or compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import run, scaled


def train(row: Any, data: Any) -> tuple[Callable[[], None], Callable[[], float]]:
    """Return what does an epoch, and what measures the test accuracy."""
    torch.manual_seed(0)
    x, test_x = (torch.from_numpy(scaled(images)) for images in data[::2])
    y, test_y = (torch.from_numpy(labels.astype(np.int64)) for labels in data[1::2])
    layers: list[torch.nn.Module] = []
    for inputs, units in zip(row["sizes"], row["sizes"][1:], strict=False):
        layers += [torch.nn.Linear(inputs, units), torch.nn.ReLU()]
    model: Any = torch.nn.Sequential(*layers[:-1])
    fused = True if row["variant"] != "eager" else None
    options = {"lr": row["learning_rate"], "fused": fused}
    optimizer: Any
    if row["optimizer"] == "adam":
        optimizer = torch.optim.Adam(model.parameters(), **options)
    else:
        momentum = 0.9 if row["optimizer"] == "momentum" else 0.0
        optimizer = torch.optim.SGD(model.parameters(), momentum=momentum, **options)
    loss_of = torch.nn.functional.cross_entropy
    batch = row["batch_size"]

    def loss_and_gradients(images: Any, labels: Any) -> None:
        loss_of(model(images), labels).backward()

    if row["variant"] == "compiled":
        # The last batch may be smaller: a kernel for either size is faster than one for any.
        forward = torch.compile(
            lambda images, labels: loss_of(model(images), labels), dynamic=False
        )

        def loss_and_gradients(images: Any, labels: Any) -> None:
            forward(images, labels).backward()

    def epoch() -> None:
        for chosen in torch.randperm(len(x)).split(batch):
            optimizer.zero_grad(set_to_none=True)
            loss_and_gradients(x.index_select(0, chosen), y.index_select(0, chosen))
            optimizer.step()

    def accuracy() -> float:
        with torch.inference_mode():
            return float((model(test_x).argmax(1) == test_y).float().mean())

    return epoch, accuracy


run(train)
