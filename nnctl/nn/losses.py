"""The losses: one number for how wrong a batch is, and where its gradient starts.

Outputs are (batch, classes), labels (batch,) integers. A loss is a mean over the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nnctl.nn.functions import Array, log_sum_exp, one_hot, softmax
from nnctl.nn.hyperparameters import Fraction, Hyperparameters


class Loss(Hyperparameters):
    """A loss; a subclass is a dataclass whose fields are its config keys."""

    has_probabilities: ClassVar[bool] = False  # whether the scores are: softmax of the outputs

    def targets(self, labels: Array, classes: int, dtype: Any = np.float32) -> Array:
        """Return what the scores are compared with, (batch, classes): here one-hot."""
        return one_hot(labels, classes, dtype)

    def forward(self, outputs: Array, labels: Array) -> float:
        """Return what training minimises, and remember what the backward pass needs."""
        raise NotImplementedError

    def backward(self, dout: float = 1.0) -> Array:
        """Return the gradient with respect to the outputs, times the upstream gradient `dout`."""
        raise NotImplementedError

    def per_sample(self, outputs: Array, labels: Array) -> Array:
        """Return the reported loss of each sample, (batch,): without label smoothing."""
        raise NotImplementedError

    def scores(self, outputs: Array) -> Array:
        """Return what the prediction is judged by, (batch, classes); the largest wins."""
        raise NotImplementedError


@dataclass(eq=False)
class SoftmaxWithLoss(Loss):
    """Cross-entropy of softmax(logits) against the targets t, in nats.

    L = log sum exp(z) - sum(t z), which needs no logarithm of a probability. Back: dz = y - t,
    y the softmax. With label smoothing s, t is 1 - s + s / classes at the label and s / classes
    elsewhere (Szegedy et al. 2016, "Rethinking the Inception architecture", section 7).
    """

    has_probabilities: ClassVar[bool] = True

    label_smoothing: Fraction = 0.0

    def targets(self, labels: Array, classes: int, dtype: Any = np.float32) -> Array:
        """Return t: one-hot but for the label smoothing."""
        s = self.label_smoothing
        return (1 - s) * super().targets(labels, classes, dtype) + s / classes

    def forward(self, outputs: Array, labels: Array) -> float:
        """Return the mean cross-entropy, in nats."""
        # (classes, batch): the sums over ten classes are then sums of ten long rows
        z = outputs.T.copy()  # for a batch of one, the transpose alone is contiguous
        z -= np.maximum.reduce(z, axis=0)
        self.label_places = labels, np.arange(len(labels))
        s = self.label_smoothing
        target_logit = z[self.label_places]
        if s:
            target_logit = (1 - s) * target_logit + s * z.mean(axis=0)
        y = np.exp(z, out=z)
        total = np.add.reduce(y, axis=0)
        y /= total
        self.y = y
        losses = np.log(total) - target_logit
        return float(np.add.reduce(losses, dtype=np.float64)) / len(labels)

    def backward(self, dout: float = 1.0) -> Array:
        """Return (y - t) dout / batch."""
        classes, batch = self.y.shape
        s, scale = self.label_smoothing, dout / batch
        dz: Array = np.multiply(self.y, scale)
        dz[self.label_places] -= (1 - s) * scale
        if s:
            dz -= s / classes * scale
        return dz.T

    def per_sample(self, outputs: Array, labels: Array) -> Array:
        """Return log sum exp(z) - z[label] of each sample, in nats."""
        z = np.ascontiguousarray(outputs.T)  # long rows, as in `forward`
        losses: Array = log_sum_exp(z, axis=0)[0] - z[labels, np.arange(len(labels))]
        return losses

    def scores(self, outputs: Array) -> Array:
        """Return the probabilities, softmax(outputs)."""
        return softmax(np.ascontiguousarray(outputs.T), axis=0).T


@dataclass(eq=False)
class MeanSquaredError(Loss):
    """L = mean over batch and classes of (y - t)^2, t one-hot; dy = 2 (y - t) / (batch classes)."""

    def forward(self, outputs: Array, labels: Array) -> float:
        """Return the mean squared error."""
        self.difference = outputs - self.targets(labels, outputs.shape[1], outputs.dtype)
        return float(np.square(self.difference).mean(dtype=np.float64))

    def backward(self, dout: float = 1.0) -> Array:
        """Return 2 (y - t) dout / (batch classes)."""
        return self.difference * (2 * dout / self.difference.size)

    def per_sample(self, outputs: Array, labels: Array) -> Array:
        """Return the mean over the classes of (y - t)^2 of each sample."""
        difference = outputs - self.targets(labels, outputs.shape[1], outputs.dtype)
        losses: Array = np.square(difference).mean(axis=1)
        return losses

    def scores(self, outputs: Array) -> Array:
        """Return the outputs as they are."""
        return outputs


LOSSES: dict[str, type[Loss]] = {
    "softmax_cross_entropy": SoftmaxWithLoss,
    "mean_squared_error": MeanSquaredError,
}
