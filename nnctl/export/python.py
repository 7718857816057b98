"""A network as one Python file that needs NumPy alone."""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any

from nnctl import __version__
from nnctl.export.model import Model
from nnctl.nn.hyperparameters import kind_of
from nnctl.nn.layers import GELU, LAYERS

TEMPLATE = Path(__file__).with_name("standalone.py.txt")
WIDTH = 100  # characters of a line

# What each layer does to x, one equation after the other; `w` looks a weight up by its name.
EQUATIONS: dict[str, Callable[[str, Any], list[str]]] = {
    "affine": lambda name, layer: [f'x @ w["{name}.weight"] + w["{name}.bias"]'],
    "relu": lambda name, layer: ["np.maximum(x, 0)"],
    "leaky_relu": lambda name, layer: [f"np.where(x > 0, x, {layer.slope!r} * x)"],
    "sigmoid": lambda name, layer: ["1 / (1 + np.exp(-x))"],
    "tanh": lambda name, layer: ["np.tanh(x)"],
    "gelu": lambda name, layer: [
        f"x * (1 + np.tanh({GELU.A!r} * x * (1 + {GELU.B!r} * x * x))) / 2"
    ],
    "dropout": lambda name, layer: [],  # only in training
    "batch_norm": lambda name, layer: [
        f'x - w["{name}.running_mean"]',
        f'x / np.sqrt(w["{name}.running_variance"] + {layer.epsilon!r})',
        f'x * w["{name}.weight"] + w["{name}.bias"]',
    ],
}


def to_python(model: Model) -> bytes:
    """Return the file: the template with the model's equations and weights."""
    network = model.network
    names = [network.layer_name(index) for index in range(len(network.layers))]
    equations = [
        f"    x = {equation}"
        for name, layer in zip(names, network.layers, strict=True)
        for equation in EQUATIONS[kind_of(LAYERS, layer)](name, layer)
    ]
    weights = []
    for name, array in model.arrays.items():
        text = textwrap.wrap(base64.b64encode(array.tobytes()).decode(), WIDTH)
        weights += [f'    "{name}": ({array.shape}, """', *text, '"""),']
    rows, columns = model.image_shape
    labels = model.class_names or tuple(map(str, range(network.widths[-1])))
    softmax = model.loss.has_probabilities
    file = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        summary=model.summary,
        version=__version__,
        rows=rows,
        columns=columns,
        pixels=network.inputs,
        classes=network.widths[-1],
        class_names=list(labels),
        equations="\n".join(equations),
        output=model.output,
        scores="softmax(outputs(batch, WEIGHTS))" if softmax else "outputs(batch, WEIGHTS)",
        weights="\n".join(weights),
    )
    return file.encode()
