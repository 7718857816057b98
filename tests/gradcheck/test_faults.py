"""Every planted fault is caught, in the layer that has it, with the cause in words."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

from nnctl.gradcheck.check import check, check_layer
from nnctl.gradcheck.report import Report
from nnctl.nn.functions import Array
from nnctl.nn.layers import Activation, Affine, BatchNorm, Dropout, Layer, LeakyReLU, ReLU, Sigmoid
from nnctl.nn.losses import Loss, MeanSquaredError, SoftmaxWithLoss
from nnctl.nn.network import Network

INPUTS, UNITS, CLASSES, BATCH = 7, 12, 5, 8
CYCLES = int(os.environ.get("NNCTL_TEST_CYCLES") or 20)


def checked(layers: list[Layer], loss: Loss, seed: int = 0, *, black: int = 0) -> Report:
    """Check a network on random images, of which so many are `black`."""
    rng = np.random.default_rng(seed)
    network = Network(layers, INPUTS, dtype=np.float64)
    network.initialize(seed)
    x, labels = rng.normal(size=(BATCH, INPUTS)), rng.integers(0, CLASSES, BATCH)
    x[:black] = 0
    return check(network, loss, x, labels, seed=seed)


# Affine


class NegativeInputGradient(Affine):
    def input_gradient(self, dout: Array) -> Array:
        return -super().input_gradient(dout)


class SlightFactor(Affine):
    """Off by so little that the gradients look the same."""

    def input_gradient(self, dout: Array) -> Array:
        return super().input_gradient(dout) * 1.00001


class OneEntryOff(Affine):
    def parameter_gradients(self, dout: Array) -> None:
        super().parameter_gradients(dout)
        self.gradients["weight"][3, 5] += 1


class NegativeWeightGradient(Affine):
    def parameter_gradients(self, dout: Array) -> None:
        super().parameter_gradients(dout)
        self.gradients["weight"] *= -1


class WithoutBiasGradient(Affine):
    def parameter_gradients(self, dout: Array) -> None:
        np.dot(self.x.T, dout, out=self.gradients["weight"])


class MeanForSum(Affine):
    def parameter_gradients(self, dout: Array) -> None:
        super().parameter_gradients(dout)
        np.mean(dout, axis=0, out=self.gradients["bias"])


class Accumulates(Affine):
    def parameter_gradients(self, dout: Array) -> None:
        self.gradients["weight"] += self.x.T @ dout
        self.gradients["bias"] += dout.sum(axis=0)


class NewArray(Affine):
    def parameter_gradients(self, dout: Array) -> None:
        self.gradients["weight"] = self.x.T @ dout
        self.gradients["bias"] = dout.sum(axis=0)


class TransposedWeight(Affine):
    def input_gradient(self, dout: Array) -> Array:
        dx: Array = dout @ self.weight
        return dx


class TransposedGradient(Affine):
    def parameter_gradients(self, dout: Array) -> None:
        super().parameter_gradients(dout)
        self.gradients["weight"][...] = dout.T @ self.x


class KeepsTheFirstInput(Affine):
    first: Array | None = None

    def forward(self, x: Array, training: bool = False) -> Array:
        y = super().forward(x, training)
        if self.first is None:
            self.first = x.copy()
        self.x = self.first
        return y


class KeepsTheInputBefore(Affine):
    now: Array | None = None

    def forward(self, x: Array, training: bool = False) -> Array:
        y = super().forward(x, training)
        self.x, self.now = x if self.now is None else self.now, x.copy()
        return y


class KeepsTheFirstWeight(Affine):
    turned: Array | None = None

    def input_gradient(self, dout: Array) -> Array:
        if self.turned is None:
            self.turned = self.weight.T.copy()
        dx: Array = dout @ self.turned
        return dx


class SkipsTheLastUnit(Affine):
    def parameter_gradients(self, dout: Array) -> None:
        super().parameter_gradients(dout)
        self.gradients["weight"][:, -1] = 0


# Activations and dropout


class MaskOfTheUnitBeside(ReLU):
    def input_gradient(self, dout: Array) -> Array:
        dx: Array = np.roll(self.mask, 1, axis=1) * dout
        return dx


class MaskOfTheSampleBeside(ReLU):
    def input_gradient(self, dout: Array) -> Array:
        dx: Array = np.roll(self.mask, 1, axis=0) * dout
        return dx


class MaskAboveOne(ReLU):
    def function(self, x: Array) -> Array:
        y = super().function(x)
        self.mask = (x > 1).astype(x.dtype)
        return y


class WithoutDerivative(ReLU):
    def input_gradient(self, dout: Array) -> Array:
        return dout.copy()


class EditsUpstream(ReLU):
    def input_gradient(self, dout: Array) -> Array:
        dout *= self.mask
        return dout


class EditsInput(ReLU):
    def forward(self, x: Array, training: bool = False) -> Array:
        y = super().forward(x, training)
        x[...] = y
        return y


class ForgetsSlope(LeakyReLU):
    def derivative(self) -> Array:
        return np.equal(self.mask, 1).astype(self.mask.dtype)


class WrongSigmoid(Sigmoid):
    def derivative(self) -> Array:
        return self.y


class ForgetsUpstream(Sigmoid):
    def input_gradient(self, dout: Array) -> Array:
        return self.derivative()


class ForgetsScale(Dropout):
    def input_gradient(self, dout: Array) -> Array:
        return np.where(self.mask, dout, 0)


class GlobalRandomness(Dropout):
    def draw_mask(self, x: Array) -> Array:
        return np.random.default_rng().integers(0, 2, x.shape).astype(x.dtype)


class Coarse(ReLU):
    def forward(self, x: Array, training: bool = False) -> Array:
        return super().forward(x, training).astype(np.float32)


# BatchNorm


class WithoutMeanTerm(BatchNorm):
    def input_gradient(self, dout: Array) -> Array:
        dx: Array = super().input_gradient(dout) + dout.mean(axis=0) * (
            self.weight * self.inverse_std
        )
        return dx


class WithoutVarianceTerm(BatchNorm):
    def input_gradient(self, dout: Array) -> Array:
        dx: Array = (dout - dout.mean(axis=0)) * (self.weight * self.inverse_std)
        return dx


class WithoutBothTerms(BatchNorm):
    def input_gradient(self, dout: Array) -> Array:
        dx: Array = dout * (self.weight * self.inverse_std)
        return dx


class ForgetsGamma(BatchNorm):
    def input_gradient(self, dout: Array) -> Array:
        dx: Array = super().input_gradient(dout) / self.weight
        return dx


# Losses


class WithoutBatchDivision(SoftmaxWithLoss):
    def backward(self, dout: float = 1.0) -> Array:
        return super().backward(dout) * BATCH


class SumForMean(SoftmaxWithLoss):
    def forward(self, outputs: Array, labels: Array) -> float:
        return super().forward(outputs, labels) * len(outputs)

    def backward(self, dout: float = 1.0) -> Array:
        return super().backward(dout) * BATCH


class SoftmaxOverTheBatch(SoftmaxWithLoss):
    def forward(self, outputs: Array, labels: Array) -> float:
        loss = super().forward(outputs, labels)
        y = np.exp(outputs - outputs.max()).T
        self.y = y / y.sum()
        return loss


class SoftmaxOverTheBatchBothWays(SoftmaxWithLoss):
    """Consistent, so that its gradient is right: of another function than the loss."""

    def forward(self, outputs: Array, labels: Array) -> float:
        loss = super().forward(outputs, labels)
        y = np.exp(outputs)
        target = outputs[np.arange(len(labels)), labels]
        self.d = y / y.sum()
        self.d[np.arange(len(labels)), labels] -= 1 / len(labels)
        loss = float(np.log(y.sum()) - target.mean())
        return loss

    def backward(self, dout: float = 1.0) -> Array:
        dz: Array = self.d * dout
        return dz


class ForgetsSmoothing(SoftmaxWithLoss):
    def backward(self, dout: float = 1.0) -> Array:
        dz = self.y.copy()
        dz[self.label_places] -= 1
        turned: Array = (dz * (dout / dz.shape[1])).T
        return turned


class ForwardForgetsSmoothing(SoftmaxWithLoss):
    def forward(self, outputs: Array, labels: Array) -> float:
        super().forward(outputs, labels)
        return SoftmaxWithLoss().forward(outputs, labels)


class ForgetsDout(SoftmaxWithLoss):
    def backward(self, dout: float = 1.0) -> Array:
        return super().backward()


class ForgetsTwo(MeanSquaredError):
    def backward(self, dout: float = 1.0) -> Array:
        return super().backward(dout) / 2


class WithoutClassDivision(MeanSquaredError):
    def backward(self, dout: float = 1.0) -> Array:
        return super().backward(dout) * CLASSES


class Fault(NamedTuple):
    plant: Callable[[], Layer | Loss]
    words: str  # of the cause


FAULTS = [
    Fault(lambda: NegativeInputGradient(UNITS), "the input gradient has the wrong sign"),
    Fault(lambda: NegativeWeightGradient(UNITS), "the gradient of its weight has the wrong sign"),
    Fault(lambda: SlightFactor(UNITS), "is 1.00001 times the numerical one"),
    Fault(lambda: OneEntryOff(UNITS), "the gradient of its weight is wrong at 1 of 144"),
    Fault(lambda: WithoutBiasGradient(UNITS), "the gradient of its bias is missing"),
    Fault(lambda: MeanForSum(UNITS), "its bias is a mean over the batch where a sum belongs"),
    Fault(lambda: Accumulates(UNITS), "set it with = in place of +="),
    Fault(lambda: NewArray(UNITS), "is put into a new array"),
    Fault(lambda: TransposedWeight(UNITS), "its weight transposed the wrong way"),
    Fault(lambda: TransposedGradient(UNITS), "the gradient of its weight is transposed"),
    Fault(lambda: KeepsTheFirstInput(UNITS), "stale cache"),
    Fault(lambda: KeepsTheInputBefore(UNITS), "stale cache"),
    Fault(lambda: KeepsTheFirstWeight(UNITS), "stale cache"),
    Fault(
        lambda: SkipsTheLastUnit(UNITS),
        "the gradient of its weight of unit 11 (the last) alone is missing",
    ),
    Fault(MaskOfTheUnitBeside, "the derivative of the unit beside: off by one"),
    Fault(MaskOfTheSampleBeside, "the derivative of the sample beside: off by one"),
    Fault(MaskAboveOne, "wrong for inputs from 0"),
    Fault(WithoutDerivative, "the input gradient is dout unchanged"),
    Fault(EditsUpstream, "dout is changed"),
    Fault(EditsInput, "x is changed"),
    Fault(lambda: ForgetsSlope(slope=0.1), "backward forgets slope, which is 0.1"),
    Fault(WrongSigmoid, "by no constant factor"),
    Fault(ForgetsUpstream, "forgets dout"),
    Fault(lambda: ForgetsScale(0.2), "0.8 times the numerical one"),
    Fault(lambda: GlobalRandomness(0.5), "the output is another each time"),
    Fault(Coarse, "float32"),
    Fault(WithoutMeanTerm, "how each sample moves the batch's mean"),
    Fault(WithoutVarianceTerm, "how each sample moves the batch's variance"),
    Fault(WithoutBothTerms, "how each sample moves the batch's mean and variance"),
    Fault(ForgetsGamma, "backward forgets weight"),
    Fault(WithoutBatchDivision, "lacks the division by the batch size: it is exactly 8 times"),
    Fault(SumForMean, "the sum of the samples' losses where their mean belongs"),
    Fault(SoftmaxOverTheBatch, "taken over the whole batch"),
    Fault(SoftmaxOverTheBatchBothWays, "taken over the whole batch"),
    Fault(lambda: ForgetsSmoothing(0.1), "backward forgets label_smoothing, which is 0.1"),
    Fault(lambda: ForwardForgetsSmoothing(0.1), "forward forgets label_smoothing, which is 0.1"),
    Fault(ForgetsDout, "forgets dout"),
    Fault(ForgetsTwo, "lacks a factor 2: it is exactly 1/2 times"),
    Fault(WithoutClassDivision, "lacks the division by the number of units: it is exactly 5 times"),
]


each_fault = pytest.mark.parametrize(
    "fault", FAULTS, ids=lambda fault: type(fault.plant()).__name__
)


@pytest.mark.parametrize(
    ("fault", "black"),
    [(fault, (3, BATCH)[n % 2]) for n, fault in enumerate(FAULTS)]
    + [(fault, (BATCH, 3)[n % 2]) for n, fault in enumerate(FAULTS) if CYCLES > 20],
    ids=lambda value: str(value) if isinstance(value, int) else type(value.plant()).__name__,
)
def test_check_catches_a_planted_fault_where_kinks_may_hide_it(fault: Fault, black: int) -> None:
    planted = fault.plant()
    if isinstance(planted, Loss):
        report = checked([Affine(UNITS), ReLU(), Affine(CLASSES)], planted, black=black)
        name = type(planted).__name__
    else:
        # Without biases yet, a black image puts every unit of every layer exactly at 0.
        layers = [Affine(UNITS), ReLU(), planted, ReLU(), Affine(CLASSES)]
        report = checked(layers, SoftmaxWithLoss(), black=black)
        name = f"2.{type(planted).__name__}"
    assert report.verdict == "wrong"
    assert [layer.name for layer in report.layers if not layer.passed] == [name]
    assert report.cause is not None
    assert fault.words in report.cause, report.cause


@each_fault
def test_check_catches_a_planted_fault_and_names_layer_and_cause(fault: Fault) -> None:
    for seed in range(2):
        planted = fault.plant()
        if isinstance(planted, Loss):
            report = checked([Affine(UNITS), ReLU(), Affine(CLASSES)], planted, seed)
            name = type(planted).__name__
        else:
            layers = [Affine(UNITS), planted, Affine(CLASSES)]
            report = checked(layers, SoftmaxWithLoss(), seed)
            name = f"1.{type(planted).__name__}"
        assert not report.passed
        assert report.cause is not None
        assert report.cause.startswith(f"{name}: ")
        assert fault.words in report.cause, report.cause
        assert [layer.name for layer in report.layers if not layer.passed] == [name]


def test_a_wrong_input_gradient_spoils_what_lies_below_but_only_its_layer_is_named() -> None:
    layers = [Affine(UNITS), ReLU(), NegativeInputGradient(UNITS), Affine(CLASSES)]
    report = checked(layers, SoftmaxWithLoss())
    assert [p.name for p in report.parameters if p.failed] == ["0.affine.weight", "0.affine.bias"]
    assert [layer.name for layer in report.layers if not layer.passed] == [
        "2.NegativeInputGradient"
    ]
    worst = report.parameters[0].worst
    assert worst is not None
    assert worst.analytic == pytest.approx(-worst.numerical)
    assert report.parameters[0].max_relative_error == pytest.approx(2)


def test_two_layers_with_the_same_fault_are_named_together() -> None:
    layers: list[Layer] = [MeanForSum(UNITS), ReLU(), MeanForSum(CLASSES)]
    cause = checked(layers, SoftmaxWithLoss()).cause
    assert cause is not None
    assert cause.startswith("0.MeanForSum and 2.MeanForSum: the gradient of its bias")


def test_a_ratio_that_may_mean_two_things_is_told_as_both() -> None:
    cause = checked([Affine(BATCH)], WithoutBatchDivision()).cause
    assert cause == (
        "WithoutBatchDivision: the input gradient lacks the division by the batch size or "
        "lacks the division by the number of units: it is exactly 8 times the numerical one, "
        "and the batch has 8 samples"
    )


def test_a_patched_layer_keeps_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Affine, "input_gradient", lambda self, dout: -dout @ self.weight.T)
    report = checked([Affine(UNITS), ReLU(), Affine(CLASSES)], SoftmaxWithLoss())
    assert report.cause == (
        "0.affine and 2.affine: the input gradient has the wrong sign: "
        "it is exactly -1 times the numerical one"
    )


def test_a_way_back_that_stops_is_a_finding() -> None:
    layers: list[Layer] = [Affine(UNITS), TransposedWeight(UNITS - 1), Affine(CLASSES)]
    report = checked(layers, SoftmaxWithLoss())
    assert not report.passed
    assert report.failed == report.checked
    assert report.cause is not None
    assert report.cause.startswith("1.TransposedWeight: input_gradient stops with ValueError")


def test_a_network_that_joins_right_layers_wrongly_is_blamed_itself() -> None:
    class Impatient(Network):
        def backward(self, dout: Array, **options: Any) -> Array:
            dout = super().backward(dout, **options)
            self.layers[0].gradients["weight"][...] *= 2
            return dout

    network = Impatient([Affine(UNITS), ReLU(), Affine(CLASSES)], INPUTS, dtype=np.float64)
    network.initialize(0)
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(BATCH, INPUTS)), rng.integers(0, CLASSES, BATCH)
    report = check(network, SoftmaxWithLoss(), x, labels)
    assert all(layer.passed for layer in report.layers)
    assert report.cause is not None
    assert "every layer is right by itself" in report.cause
    assert "0.affine.weight" in report.cause


def test_check_layer_says_in_a_line_what_is_wrong() -> None:
    x = np.random.default_rng(0).normal(size=(4, 3))
    found = check_layer(WithoutBiasGradient(2), x)
    assert not found.passed
    assert [g.name for g in found.gradients if g.failed] == ["bias"]
    assert str(found) == (
        "WithoutBiasGradient: wrong. The gradient of its bias is missing: "
        "backpropagation leaves it at 0."
    )


@dataclass(eq=False)
class WrongShape(Layer):
    def forward(self, x: Array, training: bool = False) -> Array:
        return x.copy()

    def input_gradient(self, dout: Array) -> Array:
        return dout[:1]


@pytest.mark.parametrize(("h", "tolerance"), [(1e-2, 1e-6), (1e-3, 1e-6), (1e-2, 1e-9)])
def test_no_fault_is_found_where_too_much_is_asked(h: float, tolerance: float) -> None:
    x = np.random.default_rng(0).normal(size=(4, 3))
    x[:, 1] *= 1e-4  # batch_norm bends sharply where its input hardly varies
    assert check_layer(BatchNorm(), x).passed
    cause = check_layer(BatchNorm(), x, h=h, tolerance=tolerance).cause
    assert cause is not None
    assert cause.startswith("backpropagation agrees with the numerical gradient at h = 1e-05")


@pytest.mark.parametrize("h", [1e-2, 1e-3])
def test_fault_is_named_at_a_large_step_too(h: float) -> None:
    x = np.random.default_rng(0).normal(size=(4, 3))
    cause = check_layer(WithoutBiasGradient(2), x, h=h).cause
    assert cause == "the gradient of its bias is missing: backpropagation leaves it at 0"


def test_check_layer_finds_a_gradient_of_another_shape() -> None:
    found = check_layer(WrongShape(), np.ones((4, 3)))
    assert found.cause == "the input gradient has the shape (1, 3), the input (4, 3)"


# What else goes wrong in a layer that somebody writes.


class HigherThreshold(ReLU):
    """A ReLU that lets pass what is above 1/2, with the mask of one that does so above 0."""

    def function(self, x: Array) -> Array:
        y: Array = super().function(x) * (x > 0.5)
        return y


class WrongOnTheKink(ReLU):
    """Right everywhere but at 0 itself."""

    def function(self, x: Array) -> Array:
        y = super().function(x)
        self.mask = np.where(x == 0, 2.0, self.mask)
        return y


class WithoutTheLastClass(SoftmaxWithLoss):
    def backward(self, dout: float = 1.0) -> Array:
        dz = super().backward(dout).copy()
        dz[:, -1] = 0
        return dz


class TwiceTheLastSample(SoftmaxWithLoss):
    def backward(self, dout: float = 1.0) -> Array:
        dz = super().backward(dout).copy()
        dz[-1] *= 2
        return dz


@dataclass(eq=False)
class Narrow(Layer):
    """Its output is not as wide as it says."""

    def forward(self, x: Array, training: bool = False) -> Array:
        return x[:, 1:].copy()


@dataclass(eq=False)
class Misspelt(Activation):
    def function(self, x: Array) -> Array:
        self.x = x
        y: Array = x * x
        return y

    def derivate(self) -> Array:
        dy_dx: Array = 2 * self.x
        return dy_dx


@dataclass(eq=False)
class ReturnsNothing(Layer):
    def forward(self, x: Array, training: bool = False) -> Array:
        self.y = x.copy()
        return None  # type: ignore[return-value]


@dataclass(eq=False)
class Raises(Layer):
    def forward(self, x: Array, training: bool = False) -> Array:
        raise IndexError("list index out of range")


class NeitherBackward(ReLU):
    def input_gradient(self, dout: Array) -> Array:
        return None  # type: ignore[return-value]


class NotADataclass(Layer):
    def __init__(self, units: int) -> None:
        self.units = units


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (HigherThreshold, "the input gradient is wrong for inputs from 0."),
        (WrongOnTheKink, "the input gradient is wrong at a kink, for inputs of 0: "),
        (Narrow, "forward returns an array of shape (8, 11), where the batch and output_units"),
        (Misspelt, "input_gradient calls derivative, which is not defined"),
        (ReturnsNothing, "forward returns nothing, not an array: end it with return y"),
        (Raises, "forward stops with IndexError: list index out of range"),
        (NeitherBackward, "input_gradient returns nothing, not an array"),
    ],
)
@pytest.mark.parametrize("black", [3, BATCH])
def test_cause_is_named_well(plant: Callable[[], Layer], words: str, black: int) -> None:
    layers = [Affine(UNITS), plant(), Affine(CLASSES)]
    report = checked(layers, SoftmaxWithLoss(), black=black)
    assert report.verdict == "wrong"
    assert report.cause is not None
    assert report.cause.startswith(f"1.{plant.__name__}: {words}")


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (WithoutTheLastClass, "of class 4 (the last) alone is missing"),
        (TwiceTheLastSample, "of sample 7 (the last) alone has a factor 2 too many"),
    ],
)
def test_class_or_sample_that_is_wrong_alone_is_named(
    plant: Callable[[], Loss], words: str
) -> None:
    cause = checked([Affine(UNITS), ReLU(), Affine(CLASSES)], plant()).cause
    assert cause is not None
    assert f"the input gradient {words}" in cause


def test_check_layer_says_what_a_layer_lacks_and_takes_lists() -> None:
    x = [[1, 2, -1], [0, 3, -4]]
    assert str(check_layer(ReLU(), x)) == "relu: right"
    assert str(check_layer(NotADataclass(3), x)).startswith(
        "NotADataclass: wrong. The layer has not been set up: write @dataclass(eq=False) above"
    )
    assert str(check_layer(Misspelt(), x)) == (
        "Misspelt: wrong. input_gradient calls derivative, which is not defined: look for a "
        "misspelt name."
    )
    assert check_layer(ReturnsNothing(), x).verdict == "wrong"


@pytest.mark.parametrize("x", [[1, 2], [[]], "text", None, [[1], [2, 3]], [["a"]]])
def test_check_layer_refuses_what_is_no_table_of_numbers(x: object) -> None:
    with pytest.raises(ValueError, match=r"x must be a table of numbers, \(batch, inputs\)"):
        check_layer(ReLU(), x)  # type: ignore[arg-type]


def test_output_that_is_not_finite_leaves_the_verdict_open() -> None:
    network = Network([Affine(UNITS), ReLU(), Affine(CLASSES)], INPUTS, dtype=np.float64)
    network.parameters[...] = 1e200
    rng = np.random.default_rng(0)
    report = check(
        network, SoftmaxWithLoss(), rng.normal(size=(BATCH, INPUTS)) ** 2, np.zeros(8, int)
    )
    assert (report.verdict, report.passed) == ("undecided", False)
    assert report.cause is not None
    assert "the output is not finite, so that there is nothing to compare" in report.cause
