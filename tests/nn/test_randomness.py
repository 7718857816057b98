"""One seed, a stream for each concern."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nnctl.nn.randomness import Concern, generator


def test_stream_is_a_function_of_its_arguments() -> None:
    one, other = (generator(3, Concern.DROPOUT, 1, 2).random(100) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_streams_of_seeds_concerns_and_keys_have_nothing_in_common() -> None:
    streams = [
        generator(seed, concern, *key).random(2000)
        for seed in (0, 1, 2**63 - 1)
        for concern in Concern
        for key in ((), (0,), (1,), (0, 1), (1, 0))
    ]
    for one, other in itertools.combinations(streams, 2):
        assert not np.intersect1d(one, other).size
    correlations = np.corrcoef(streams) - np.eye(len(streams))
    assert np.abs(correlations).max() < 5.5 / np.sqrt(2000)


def test_drawing_from_one_stream_leaves_the_others_and_numpys_own_alone() -> None:
    before = np.random.get_state(legacy=False)
    first, second = generator(0, Concern.SHUFFLE, 1), generator(0, Concern.SHUFFLE, 2)
    parts = [second.random(3), first.random(1000), second.random(2)]
    expected = generator(0, Concern.SHUFFLE, 2).random(5)
    np.testing.assert_array_equal(np.concatenate(parts[::2]), expected)
    np.testing.assert_equal(np.random.get_state(legacy=False), before)


def test_concerns_keep_the_numbers_that_seeds_rely_on() -> None:
    assert {concern.name: int(concern) for concern in Concern} == {
        "INITIALIZATION": 0,
        "SPLIT": 1,
        "SHUFFLE": 2,
        "DROPOUT": 3,
        "SAMPLE": 4,
        "AUGMENTATION": 5,
        "SWEEP": 6,
    }


def test_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        generator(-1, Concern.SPLIT)
