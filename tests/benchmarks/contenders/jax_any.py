"""JAX: one compiled scan over the whole epoch, or one compiled step called in a loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import run


def train(row: Any, data: Any) -> tuple[Callable[[], None], Callable[[], float]]:
    """Return what does an epoch, and what measures the test accuracy."""
    # The fastest of what was tried: bytes until they are needed, the order drawn by NumPy, four
    # steps unrolled.
    x, y, test_x, test_y = (jnp.asarray(array) for array in data)
    rng = np.random.default_rng(0)
    rate, batch, kind = row["learning_rate"], row["batch_size"], row["optimizer"]
    steps = len(x) // batch  # a last, smaller batch is left out, as usual where shapes are fixed
    key = jax.random.key(0)
    parameters = []
    for inputs, units in zip(row["sizes"], row["sizes"][1:], strict=False):
        key, sub = jax.random.split(key)
        weight = jax.random.normal(sub, (inputs, units)) * (2 / inputs) ** 0.5
        parameters.append((weight, jnp.zeros(units)))

    def forward(parameters: Any, images: Any) -> Any:
        images = images.astype(jnp.float32) / 255
        for weight, bias in parameters[:-1]:
            images = jax.nn.relu(images @ weight + bias)
        weight, bias = parameters[-1]
        return images @ weight + bias

    def loss(parameters: Any, images: Any, labels: Any) -> Any:
        z = forward(parameters, images)
        picked = jnp.take_along_axis(z, labels[:, None], 1)[:, 0]
        return (jax.nn.logsumexp(z, axis=1) - picked).mean()

    def step(state: Any, images: Any, labels: Any) -> Any:
        w, m, v, t = state
        g = jax.grad(loss)(w, images, labels)
        tree = jax.tree.map
        if kind == "sgd":
            return tree(lambda w, g: w - rate * g, w, g), m, v, t
        if kind == "momentum":
            m = tree(lambda m, g: 0.9 * m - rate * g, m, g)
            return tree(jnp.add, w, m), m, v, t
        t = t + 1
        m = tree(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = tree(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        c1, c2 = 1 - 0.9**t, 1 - 0.999**t
        w = tree(lambda w, m, v: w - rate * (m / c1) / (jnp.sqrt(v / c2) + 1e-8), w, m, v)
        return w, m, v, t

    zeros = jax.tree.map(jnp.zeros_like, parameters)
    state = (parameters, zeros, jax.tree.map(jnp.copy, zeros), jnp.zeros(()))

    @partial(jax.jit, donate_argnums=0)
    def scanned(state: Any, order: Any, x: Any, y: Any) -> Any:
        def body(state: Any, chosen: Any) -> tuple[Any, None]:
            return step(state, x[chosen], y[chosen]), None

        return jax.lax.scan(body, state, order, unroll=4)[0]

    one = jax.jit(lambda state, chosen, x, y: step(state, x[chosen], y[chosen]), donate_argnums=0)

    def epoch() -> None:
        nonlocal state
        order = rng.permutation(len(x))[: steps * batch].reshape(steps, batch).astype(np.int32)
        if row["variant"] == "scan":
            state = scanned(state, order, x, y)
        else:
            for chosen in order:
                state = one(state, chosen, x, y)
        jax.block_until_ready(state)

    def accuracy() -> float:
        outputs = jax.jit(forward)(state[0], test_x)
        return float((outputs.argmax(1) == test_y).mean())

    return epoch, accuracy


run(train)
