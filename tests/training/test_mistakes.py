"""The most confident mistakes of a network whose outputs can be read off its weights."""

from __future__ import annotations

import numpy as np

from nnctl.datasets import Samples
from nnctl.nn.layers import Affine
from nnctl.nn.losses import MeanSquaredError, SoftmaxWithLoss
from nnctl.nn.network import Network
from nnctl.training.evaluation import evaluate
from nnctl.training.mistakes import confident_mistakes

# The network passes pixels on, so an image's brightest pixel is its prediction.
IMAGES = np.array(
    [[255, 0, 0], [0, 255, 0], [51, 204, 0], [204, 0, 102], [0, 153, 204], [255, 0, 0]], np.uint8
)
LABELS = np.array([0, 2, 0, 1, 2, 1], np.uint8)  # samples 1, 2, 3 and 5 are wrong
SAMPLES = Samples(IMAGES, LABELS)


def identity() -> Network:
    network = Network([Affine(units=3)], 3)
    network.named_parameters()["0.affine.weight"][...] = np.eye(3)
    return network


def test_mistakes_come_with_the_surest_first() -> None:
    network, loss, indices = identity(), MeanSquaredError(), np.arange(6)
    result = evaluate(network, loss, SAMPLES, indices)
    found = confident_mistakes(network, loss, SAMPLES, indices, result, 10)
    assert [mistake.index for mistake in found] == [1, 5, 2, 3]  # earlier first on a tie
    third = found[2]
    assert (third.label, third.classes) == (0, (1, 0, 2))
    np.testing.assert_allclose(third.scores, [0.8, 0.2, 0.0], atol=1e-6)
    np.testing.assert_array_equal(third.image, IMAGES[2])


def test_mistakes_are_counted_and_named_by_their_place_in_the_file() -> None:
    network, loss, indices = identity(), SoftmaxWithLoss(), np.array([0, 3, 5])
    result = evaluate(network, loss, SAMPLES, indices)
    (mistake,) = confident_mistakes(network, loss, SAMPLES, indices, result, 1, top=2)
    assert (mistake.index, mistake.label, mistake.classes) == (5, 1, (0, 1))
    total = np.exp(1) + 2
    np.testing.assert_allclose(mistake.scores, [np.exp(1) / total, 1 / total], rtol=1e-6)
    assert confident_mistakes(network, loss, SAMPLES, indices, result, 0) == []


def test_mistakes_of_a_faultless_network_are_none() -> None:
    network, loss, indices = identity(), SoftmaxWithLoss(), np.array([0, 4])
    result = evaluate(network, loss, SAMPLES, indices)
    assert confident_mistakes(network, loss, SAMPLES, indices, result, 6) == []
