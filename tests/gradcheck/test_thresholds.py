"""Each number that decides a verdict has a test on each side."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from nnctl.gradcheck import causes, check, finite_differences, layer, network
from nnctl.gradcheck.causes import explains, matches
from nnctl.gradcheck.finite_differences import Comparison, Status, jittered, judge
from nnctl.gradcheck.network import NetworkUnderTest
from nnctl.gradcheck.report import Report
from nnctl.gradcheck.thresholds import EPSILON, TOLERANCE
from nnctl.nn.functions import Array
from nnctl.nn.layers import Affine, BatchNorm, Layer, ReLU, Tanh
from nnctl.nn.losses import SoftmaxWithLoss
from nnctl.nn.network import Network
from nnctl.training.shared_step import SharedStep

H = 1e-5


def status(
    function: Callable[[float], float], analytic: float, *, noise: float = 1e-15, h: float = H
) -> Status:
    """Return what becomes of `analytic` as the derivative of `function` at 0."""

    def slopes(entries: Array, step: float) -> tuple[Array, Array]:
        right, left = function(step) - function(0), function(0) - function(-step)
        return np.full(len(entries), right / step), np.full(len(entries), left / step)

    _, found = judge(np.array([analytic]), slopes, np.array([noise]), h, TOLERANCE)
    return Status(found[0])


def checked(offset: float = 0.0, seed: int = 0) -> Report:
    """Check a network with batch_norm on images around `offset`."""
    layers: list[Layer] = [Affine(8), BatchNorm(), ReLU(), Affine(3)]
    tested = Network(layers, 6, dtype=np.float64)
    tested.initialize(seed)
    rng = np.random.default_rng(seed)
    x, labels = rng.normal(size=(8, 6)) + offset, rng.integers(0, 3, 8)
    return check.check(tested, SoftmaxWithLoss(), x, labels, seed=seed)


def test_tolerance_parts_an_error_of_half_of_it_from_one_of_twice() -> None:
    assert status(np.sin, 1 + TOLERANCE / 2) is Status.AGREES
    assert status(np.sin, 1 + TOLERANCE * 2) is Status.FAILED


@pytest.mark.parametrize(("kinks", "verdict"), [(1, "right"), (2, "undecided")])
def test_one_entry_in_a_hundred_may_remain_unjudged(kinks: int, verdict: str) -> None:
    gradient = np.ones(100)
    found = Comparison("0.affine.bias", gradient, np.arange(100), gradient, gradient, np.zeros(100))
    found.status[:kinks] = Status.KINK
    got, cause = check.conclude({}, None, [found], set(), TOLERANCE)
    assert got == verdict
    if verdict == "undecided":
        assert cause == (
            "0.affine.bias: 2 of 100 entries can't be judged: 2 lie too near to a kink, or where "
            "the loss bends too much for h (try a smaller --h)"
        )


@pytest.mark.parametrize(("gap", "verdict"), [(0.5, "right"), (2.0, "undecided")])
def test_rounding_may_hide_what_is_small_beside_the_largest_gradient(
    gap: float, verdict: str
) -> None:
    large, small = np.full(3, 10.0), np.zeros(3)
    rounded = np.full(3, int(Status.ROUNDING))
    comparisons = [
        Comparison("weight", large, np.arange(3), large, large, np.zeros(3)),
        Comparison("bias", small, np.arange(3), small, small + gap * 10 * TOLERANCE, rounded),
    ]
    got, cause = check.conclude({}, None, comparisons, set(), TOLERANCE)
    assert got == verdict
    assert (cause is not None) == (verdict == "undecided")


@pytest.mark.parametrize("scale", [1.0, 0.0])  # on black images nothing is amplified
def test_noise_bounds_the_rounding_error_of_the_loss_but_not_by_far(scale: float) -> None:
    tested = Network([Affine(20), Tanh(), Affine(10)], 30, dtype=np.float64)
    tested.initialize(0)
    rng = np.random.default_rng(0)
    x, labels = scale * rng.normal(size=(8, 30)), rng.integers(0, 10, 8)
    found = NetworkUnderTest(tested, SoftmaxWithLoss(), x, labels, rng)
    worst = 0.0
    for parameter in found.parameters():
        places = np.arange(parameter.gradient.size)
        right, left = parameter.slopes(places)(places, 1e-8)
        errors = np.abs((right + left) / 2 - parameter.gradient.ravel()) * 1e-8
        worst = max(worst, errors.max())
    assert worst < found.noise < 300 * worst


def test_noise_counts_how_far_a_layer_amplifies_rounding_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # batch_norm takes the difference of numbers near a million
    assert [checked(1e6, seed).verdict for seed in range(4)] == ["right"] * 4
    monkeypatch.setattr(layer, "AMPLIFIED", 0.0)
    monkeypatch.setattr(network, "AMPLIFIED", 0.0)
    assert "wrong" in [checked(1e6, seed).verdict for seed in range(4)]


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        (0.0, Status.SUBGRADIENT),
        (0.3, Status.SUBGRADIENT),  # nothing can be seen between here and the kink
        (0.9, Status.KINK),  # the smallest step reaches over it, but not by far
        (1.1, Status.AGREES),
    ],
)
def test_kink_is_told_by_how_its_slopes_go_on_differing(distance: float, expected: Status) -> None:
    kink = -distance * H / 100
    assert status(lambda x: max(x - kink, 0.0), 1.0) is expected


def test_function_that_only_bends_has_no_kink() -> None:
    assert status(lambda x: x + 100 * x * x, 1.0) is Status.AGREES
    assert status(lambda x: x + 100 * x * x, 1.001) is Status.FAILED


@pytest.mark.parametrize(
    ("jump", "expected"), [(3e-4, Status.ROUNDING), (5e-4, Status.SUBGRADIENT)]
)
def test_jump_of_the_slopes_must_rise_above_the_noise(jump: float, expected: Status) -> None:
    # at h / 10 the noise of a slope is 1e-4
    assert status(lambda x: max(x, 0.0) * jump, 0.0, noise=1e-10) is expected


def test_entry_that_fails_by_rounding_alone_is_tried_at_larger_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def rough(x: float) -> float:
        return float(np.round(x, 10))

    h = 3.1415e-8
    assert status(rough, 1.0, h=h) is Status.AGREES  # though the noise is said to be 1e-15
    assert status(rough, 1.1, h=h) is Status.FAILED
    monkeypatch.setattr(finite_differences, "LARGER_STEPS", ())
    assert status(rough, 1.0, h=h) is Status.FAILED


@pytest.mark.parametrize(("size", "most"), [(0.0, 0.1), (9e-4, 0.1), (1.1e-3, 1.1e-4), (5.0, 0.5)])
def test_jitter_is_a_tenth_of_what_there_is(size: float, most: float) -> None:
    moved = np.abs(jittered(np.full(1000, size), np.random.default_rng(0)) - size)
    assert 0.9 * most < moved.max() <= most


@pytest.mark.parametrize(("part", "verdict"), [(1e-12, "right"), (1e-10, "wrong")])
def test_shared_gradient_may_differ_by_the_order_of_its_sums(
    part: float, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    differentiate = SharedStep.differentiate

    def nearly(self: SharedStep, x: Array, dout: Array) -> None:
        differentiate(self, x, dout * (1 + part))

    monkeypatch.setattr(SharedStep, "differentiate", nearly)
    tested = Network([Affine(5), Tanh(), Affine(3)], 6, dtype=np.float64)
    tested.initialize(0)
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(8, 6)), rng.integers(0, 3, 8)
    assert check.check(tested, SoftmaxWithLoss(), x, labels).verdict == verdict


def test_gradients_match_if_nearly_all_of_their_entries_do() -> None:
    a = np.linspace(1, 2, 100)
    assert matches(a * (1 + 5e-6), a)
    assert not matches(a * (1 + 2e-5), a)
    for others, expected in ((2, True), (3, False)):
        b = a.copy()
        b[:others] = 9
        assert matches(a, b) is expected


def test_supposition_explains_what_it_makes_ten_times_smaller() -> None:
    numerical = np.linspace(1, 2, 100)
    wrong = np.full(100, int(Status.FAILED))
    found = Comparison("w", numerical, np.arange(100), numerical * 1.0001, numerical, wrong)
    assert explains(found, numerical * (1 + 0.9e-5), numerical)
    assert not explains(found, numerical * (1 + 1.1e-5), numerical)
    found = Comparison("w", numerical, np.arange(100), numerical * 1.00001, numerical, wrong)
    for left, expected in ((10, True), (11, False)):
        supposed = numerical.copy()
        supposed[:left] *= 1 + 5e-6
        assert explains(found, supposed, numerical) is expected


@pytest.mark.parametrize(("entries", "named"), [(2, False), (3, True)])
def test_range_of_inputs_is_named_from_three_wrong_entries_on(entries: int, named: bool) -> None:
    x = np.linspace(-1, 1, 20).reshape(4, 5)
    tested = layer.LayerUnderTest(ReLU(), x, 5, np.random.default_rng(0))
    tested.r = np.ones((4, 5))
    wrong = np.zeros(20, np.int8)
    wrong[10 : 10 + entries] = Status.FAILED
    found = Comparison("input", x, np.arange(20), x.ravel(), x.ravel(), wrong)
    assert (causes._input_range(tested, found) is not None) is named


def test_epsilon_is_that_of_float64() -> None:
    assert 1 + EPSILON > 1 == 1 + EPSILON / 2
