import numpy as np
import pytest

from nnctl.datasets import DataSet
from nnctl.nn.layers import Affine, BatchNorm, ReLU
from nnctl.nn.losses import LOSSES
from nnctl.nn.network import Network
from nnctl.training.evaluation import chunks, evaluate


@pytest.fixture
def network() -> Network:
    network = Network([Affine(6), BatchNorm(), ReLU(), Affine(5)], 12)
    network.initialize(3)
    return network


def test_chunks_make_up_the_whole() -> None:
    assert chunks(7, 3) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert chunks(0, 3) == []


@pytest.mark.parametrize("kind", LOSSES)
def test_evaluation_is_what_the_formulas_say(
    network: Network, tiny_data: DataSet, kind: str
) -> None:
    loss, indices = LOSSES[kind](), np.array([3, 50, 7, 119])
    result = evaluate(network, loss, tiny_data.train, indices, chunk=3)
    outputs = network.forward(tiny_data.train.images[indices].astype(np.float32) / 255)
    assert result.labels.tolist() == tiny_data.train.labels[indices].tolist()
    assert result.predictions.tolist() == outputs.argmax(axis=1).tolist()
    losses = loss.per_sample(outputs, result.labels)
    assert result.loss == pytest.approx(float(losses.mean()), rel=1e-5)
    scores = loss.scores(outputs)
    np.testing.assert_allclose(result.probabilities, scores.max(axis=1), rtol=1e-5)
    assert result.accuracy == (result.predictions == result.labels).mean()


@pytest.mark.parametrize("threads", [2, 3, 50])
def test_evaluation_has_the_same_bytes_for_every_number_of_threads(
    network: Network, tiny_data: DataSet, threads: int
) -> None:
    def measured(threads: int) -> list[bytes]:
        loss, indices = LOSSES["softmax_cross_entropy"](), np.arange(30)
        result = evaluate(network, loss, tiny_data.test, indices, chunk=7, threads=threads)
        return [result.losses.tobytes(), result.predictions.tobytes()]

    assert measured(threads) == measured(1)


def test_evaluation_does_not_depend_on_the_chunks_but_for_rounding(
    network: Network, tiny_data: DataSet
) -> None:
    loss, indices = LOSSES["softmax_cross_entropy"](), np.arange(30)
    whole, parts = (evaluate(network, loss, tiny_data.test, indices, n) for n in (30, 4))
    assert whole.predictions.tolist() == parts.predictions.tolist()
    np.testing.assert_allclose(whole.losses, parts.losses, rtol=1e-4)
