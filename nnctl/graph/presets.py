"""Graphs of a course, from a purchase to a network, each with what it is there to show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nnctl.graph.expression import Expression, read


@dataclass(frozen=True)
class Preset:
    """An expression, values for its variables, and what its gradients turn out to be.

    `gradients` has, for the name of a leaf, the formula that dL/dleaf is known by; it is written
    in the names of the expression.
    """

    text: str
    values: Mapping[str, float]
    story: str
    gradients: Mapping[str, str]

    def claims(self, expression: Expression) -> dict[str, float]:
        """Return the value of each formula in `gradients`, at the values of `expression`."""
        values = {}
        for name, formula in self.gradients.items():
            claim = read(formula)
            known = expression.named | expression.variables
            claim.assign({variable: known[variable].value for variable in claim.variables})
            values[name] = claim.solve()
        return values


PRESETS = {
    "apples": Preset(
        "apple * number * tax",
        {"apple": 100, "number": 2, "tax": 1.1},
        "A product passes the gradient on, times all that the input is multiplied by: if an apple "
        "costs 1 more, the bill is number * tax higher.",
        {"apple": "number * tax", "number": "apple * tax", "tax": "apple * number"},
    ),
    "sigmoid": Preset(
        "y = 1 / (1 + exp(-x)); y",
        {"x": 1},
        "The chain rule through /, +, exp and * leaves a product that needs the output y alone. "
        "So a Sigmoid layer keeps y on the way forward, and no more.",
        {"x": "y * (1 - y)"},
    ),
    "softplus": Preset(
        "log(1 + exp(x))",
        {"x": 1},
        "A smooth relu: its derivative is the sigmoid.",
        {"x": "sigmoid(x)"},
    ),
    "neuron": Preset(
        "x1 = 0.5; x2 = -1; t = 1; y = sigmoid(w1*x1 + w2*x2 + b); (y - t)^2",
        {"w1": 0.4, "w2": 0.6, "b": 0.1},
        "The error (y - t) goes back through the sigmoid, and to each weight times its input: "
        "what a neuron learns from.",
        {
            "b": "2*(y - t) * y*(1 - y)",
            "w1": "2*(y - t) * y*(1 - y) * x1",
            "w2": "2*(y - t) * y*(1 - y) * x2",
        },
    ),
    "softmax-with-loss": Preset(
        "t1 = 0; t2 = 1; t3 = 0;"
        " e1 = exp(a1); e2 = exp(a2); e3 = exp(a3); s = e1 + e2 + e3;"
        " y1 = e1 / s; y2 = e2 / s; y3 = e3 / s;"
        " -(t1*log(y1) + t2*log(y2) + t3*log(y3))",
        {"a1": 1, "a2": 2, "a3": 0.5},
        "However long the way through log, / and exp, what arrives at a logit is the probability "
        "minus the target, y - t. So the layer takes softmax and loss together, and its backward "
        "is one subtraction.",
        {"a1": "y1 - t1", "a2": "y2 - t2", "a3": "y3 - t3"},
    ),
    "two-layer": Preset(
        "x1 = 1; x2 = 0.5; t1 = 0; t2 = 1;"
        " h1 = sigmoid(x1*w11 + x2*w21 + b1); h2 = sigmoid(x1*w12 + x2*w22 + b2);"
        " e1 = exp(h1*v11 + h2*v21 + c1); e2 = exp(h1*v12 + h2*v22 + c2); s = e1 + e2;"
        " y1 = e1 / s; y2 = e2 / s; -(t1*log(y1) + t2*log(y2))",
        {
            **{"w11": 0.5, "w12": -0.4, "w21": 0.2, "w22": 0.9, "b1": 0.1, "b2": 0.2},
            **{"v11": 0.7, "v12": -0.3, "v21": -0.6, "v22": 0.4, "c1": 0, "c2": 0},
        },
        "Affine, sigmoid, affine, softmax and the loss of one sample. Each line of the layers' "
        "backward is here: y - t at the logits, its input times that at a weight, and at a hidden "
        "unit the sum over both ways up, times h (1 - h).",
        {
            "c1": "y1 - t1",
            "c2": "y2 - t2",
            "v11": "h1 * (y1 - t1)",
            "v22": "h2 * (y2 - t2)",
            "b1": "((y1 - t1)*v11 + (y2 - t2)*v12) * h1*(1 - h1)",
            "w21": "x2 * ((y1 - t1)*v11 + (y2 - t2)*v12) * h1*(1 - h1)",
        },
    ),
}
