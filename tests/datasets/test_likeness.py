"""MNIST's layout is recognised by the images, whatever they are called."""

import numpy as np
import pytest

from nnctl.datasets import Source, load
from nnctl.datasets.likeness import is_mnist_like


def test_digits_of_the_sample_are_mnist_like() -> None:
    assert load("mnist-sample", Source()).mnist_like


@pytest.mark.parametrize("shift", [(0, 3), (3, 0)])
def test_digits_off_the_centre_are_not(shift: tuple[int, int]) -> None:
    images = load("mnist-sample", Source()).train.images[:500].reshape(-1, 28, 28)
    assert not is_mnist_like(np.roll(images, shift, axis=(1, 2)).reshape(-1, 784), (28, 28))


def test_images_that_fill_their_square_or_have_another_size_are_not() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, 784), np.uint8)
    assert not is_mnist_like(noise, (28, 28))
    assert not is_mnist_like(noise, (14, 56))
    assert not is_mnist_like(noise[:0], (28, 28))
    assert not is_mnist_like(np.zeros_like(noise), (28, 28))
