"""A network as one web page: a drawing board that needs no server and makes no request.

The page is put together from `page.html`, `page.css` and three scripts that lie beside this file.
Its Content-Security-Policy allows these alone, by their SHA-256.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from nnctl.export.model import Model
from nnctl.nn.functions import Array
from nnctl.nn.hyperparameters import kind_of
from nnctl.nn.layers import GELU, LAYERS
from nnctl.pictures import preparation
from nnctl.training.mistakes import Mistake

FOLDER = Path(__file__).parent
SCRIPTS = ("prepare.js", "network.js", "board.js")
CONSTANTS = (
    "SIDE",
    "INK",
    "FINE",
    "THINNEST",
    "USUAL",
    "THICKEST",
    "SPECK",
    "BLANK",
    "FAINT",
    "HALF",
)

# What network.js must know of a layer beside its arrays.
OPTIONS: dict[str, Callable[[Any], dict[str, float]]] = {
    "affine": lambda layer: {},
    "relu": lambda layer: {},
    "leaky_relu": lambda layer: {"slope": layer.slope},
    "sigmoid": lambda layer: {},
    "tanh": lambda layer: {},
    "gelu": lambda layer: {"a": GELU.A, "b": GELU.B},
    "dropout": lambda layer: {},
    "batch_norm": lambda layer: {"epsilon": layer.epsilon},
}


def to_html(model: Model, mistakes: Sequence[Mistake]) -> bytes:
    """Return the page; `mistakes` are the test images of its gallery."""
    style = _read("page.css")
    script = "\n".join(
        [
            '"use strict";',
            'const MODEL = JSON.parse(document.getElementById("model").textContent);',
            *map(_read, SCRIPTS),
        ]
    )
    policy = f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}"
    rows, columns = model.image_shape
    page = Template(_read("page.html")).substitute(
        policy=policy,
        style=style,
        script=script,
        title="Draw a digit" if model.mnist_like else "Draw a picture",
        summary=html.escape(model.summary),
        rows=rows,
        columns=columns,
        model=_as_json(_content(model, mistakes)),
    )
    return page.encode()


def _content(model: Model, mistakes: Sequence[Mistake]) -> dict[str, Any]:
    """Return what the scripts find in MODEL."""
    network = model.network
    layers: list[dict[str, Any]] = []
    arrays: list[Array] = []
    names = network.named_arrays()
    for index, layer in enumerate(network.layers):
        kind, prefix = kind_of(LAYERS, layer), f"{network.layer_name(index)}."
        mine = {name[len(prefix) :]: a for name, a in names.items() if name.startswith(prefix)}
        arrays += mine.values()
        sizes = {name: array.size for name, array in mine.items()}
        layers.append({"kind": kind, "arrays": sizes, **OPTIONS[kind](layer)})
    images = b"".join(mistake.image.tobytes() for mistake in mistakes)
    return {
        "layers": layers,
        "weights": _text(b"".join(map(three_bytes, arrays))),
        "softmax": model.loss.has_probabilities,
        "image_shape": model.image_shape,
        "mnist_like": model.mnist_like,
        "class_names": model.class_names or [*map(str, range(network.widths[-1]))],
        "preparation": {name: getattr(preparation, name) for name in CONSTANTS},
        "mistakes": {
            "images": _text(images),
            "labels": [mistake.label for mistake in mistakes],
            "indices": [mistake.index for mistake in mistakes],
        },
    }


def three_bytes(array: Array) -> bytes:
    """Return the numbers as float32 without their lowest byte, rounded: 16 bits of precision.

    A quarter less to load; what that changes in a score is far below what a person sees.
    """
    words = np.ascontiguousarray(array, "<f4").view("<u4").astype(np.uint64) + 0x80
    rounded = np.minimum(words, 0xFFFFFFFF).astype("<u4").view(np.uint8)
    return rounded.reshape(-1, 4)[:, 1:].tobytes()


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _as_json(content: Any) -> str:
    """Return JSON that can't end the element that it lies in."""
    return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")


def _hash(text: str) -> str:
    """Return the source that a Content-Security-Policy knows an inline text by."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
