"""Why a layer's gradient is wrong: suppositions, each tried on the layer itself.

Most common mistakes leave a mark in the two gradients: a constant ratio, a zero, a shift. Others
are found by making them on purpose: if the gradient of another batch, of a transposed weight or
of another option's value is the one that backpropagation gave, that is what it computes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from nnctl.gradcheck.finite_differences import Comparison, Slopes, Status, jittered
from nnctl.gradcheck.layer import LayerError, LayerUnderTest, LossAsLayer
from nnctl.gradcheck.thresholds import (
    EXPLAINED,
    MATCHING,
    MATCHING_ENTRIES,
    MOST_ENTRIES,
    RANGE_ENTRIES,
    TOLERANCE,
)
from nnctl.nn.functions import Array
from nnctl.nn.numerical_gradient import H, relative_error

BACKWARD = "backpropagation"
ASKED_TOO_MUCH = (
    f"{BACKWARD} agrees with the numerical gradient at h = {H:g} to {TOLERANCE:g}, so the step "
    "asked for is too large, or the tolerance too small"
)


def explain(tested: LayerUnderTest, comparisons: list[Comparison]) -> str | None:
    """Return why a layer is wrong, as a sentence without its full stop; None if it is right.

    `comparisons` are those of the layer's input and parameters.
    """
    if tested.defect is not None:
        return tested.defect
    wrong = [found for found in comparisons if found.failed.any()]
    if not wrong:
        return None
    with np.errstate(all="ignore"), tested.set_to(tested.x, tested.jittered):
        wrong = [found for found in wrong if not _agrees(tested, found)]
        if not wrong:
            return ASKED_TOO_MUCH
        first, *others = wrong
        sentence = next(filter(None, (cause(tested, first) for cause in CAUSES)))
    if others:
        names = " and ".join(other.name for other in others)
        sentence += f"; the gradient of its {names} is wrong too"
    if isinstance(tested.layer, LossAsLayer):
        sentence = sentence.replace(" of unit ", " of class ")
    return sentence


def subject(found: Comparison) -> str:
    """Return what is wrong, and where if in one row or column, as the subject of a sentence."""
    what = "the input gradient" if found.name == "input" else f"the gradient of its {found.name}"
    return what + _line(found)


def _line(found: Comparison) -> str:
    """Say in which row or column all entries lie that failed; nothing if it is none."""
    shape, failed = found.full.shape, found.failed
    rows = "sample" if found.name == "input" else "input"
    axes = {1: ("unit",), 2: (rows, "unit")}.get(len(shape), ())
    if failed.sum() < len(axes):  # a single entry lies in a row and in a column
        return ""
    for axis, name in enumerate(axes):
        numbers = np.unravel_index(found.places, shape)[axis]
        wrong = np.unique(numbers[failed])
        if len(wrong) == 1 < len(np.unique(numbers)):
            last = " (the last)" if wrong[0] == shape[axis] - 1 else ""
            return f" of {name} {wrong[0]}{last} alone"
    return ""


def matches(a: Array, b: Array) -> bool:
    """Return whether two gradients are the same but for a few entries, which may be kinks."""
    size = float(np.abs(b).max(initial=0))
    near = np.isclose(a, b, rtol=MATCHING, atol=MATCHING / 100 * size)
    return size > 0 and bool(near.mean() >= MATCHING_ENTRIES)


def explains(found: Comparison, a: Array, b: Array) -> bool:
    """Return whether a supposition that makes `a` and `b` of the two gradients explains the error.

    They must match, and be much nearer than before where the check failed: a supposition that
    changes nothing matches, too, if only a few entries are wrong, or all but slightly.
    """
    error = np.abs(found.analytic - found.numerical)[found.failed]
    left = np.abs(a - b)[found.failed]
    return matches(a, b) and bool((left < EXPLAINED * error).mean() >= MOST_ENTRIES)


def agrees_by_default(found: Comparison, slopes: Slopes) -> bool:
    """Return whether the entries that failed agree by the default step and tolerance.

    A numerical gradient is inexact: too large a step or too small a tolerance are no fault of
    backpropagation. What failed by the default ones disagrees here too.
    """
    entries = np.flatnonzero(found.failed)
    agrees = np.zeros(len(entries), np.bool_)
    for step in (H, H / 10):
        right, left = slopes(entries, step)
        agrees |= relative_error(found.analytic[entries], (right + left) / 2) <= TOLERANCE
    return bool(agrees.mean() >= MOST_ENTRIES)


def _agrees(tested: LayerUnderTest, found: Comparison) -> bool:
    """Return whether what failed agrees by the default step and tolerance."""
    return agrees_by_default(found, tested.slopes(tested.perturbation(found.name), found.places))


def _not_finite(tested: LayerUnderTest, found: Comparison) -> str | None:
    if np.isfinite(found.analytic).all():
        return None
    return f"{subject(found)} is not finite"


def _at_kinks(tested: LayerUnderTest, found: Comparison) -> str | None:
    if found.name != "input" or not (found.status[found.failed] == Status.OUTSIDE).all():
        return None
    sample, unit = np.divmod(found.places[found.failed], found.full.shape[1])
    where = np.unique(tested.x[sample, unit])
    at = f" of {where[0]:.3g}" if len(where) == 1 else f" from {where[0]:.3g} to {where[-1]:.3g}"
    return (
        f"{subject(found)} is wrong at a kink, for inputs{at}: there it may be any value between "
        "the slopes to both sides, but no other"
    )


def _missing(tested: LayerUnderTest, found: Comparison) -> str | None:
    if found.analytic[found.failed].any() or (found.full.any() and not _line(found)):
        return None
    if found.name != "input":
        now = tested.layer.gradients[found.name]
        if not np.shares_memory(now, tested.memory[found.name]) and now.any():
            return (
                f"{subject(found)} is put into a new array: write it into the one that is there, "
                f'gradients["{found.name}"][...] = ...'
            )
    return f"{subject(found)} is missing: {BACKWARD} leaves it at 0"


def _ratio(found: Comparison) -> float | None:
    """Return analytic / numerical if it is the same for all entries that failed."""
    a, n = found.analytic[found.failed], found.numerical[found.failed]
    if len(a) < 2 or not n.all():
        return None
    ratio = float(np.median(a / n))
    return ratio if ratio and matches(a / ratio, n) else None


def _telling_ratio(tested: LayerUnderTest, found: Comparison) -> str | None:
    ratio, batch = _ratio(found), len(tested.x)
    if ratio is None:
        return None
    units = max(tested.x.shape[1], tested.r.shape[1])
    samples = f", and the batch has {batch} samples"
    meanings = [
        (-1, "-1", "has the wrong sign", ""),
        (1 / batch, f"1/{batch}", "is a mean over the batch where a sum belongs", samples),
        (batch, f"{batch}", "lacks the division by the batch size", samples),
        (1 / units, f"1/{units}", "is a mean over the units where a sum belongs", ""),
        (units, f"{units}", "lacks the division by the number of units", ""),
        (2, "2", "has a factor 2 too many", ""),
        (0.5, "1/2", "lacks a factor 2", ""),
    ]
    fitting = [row for row in meanings if np.isclose(ratio, row[0], rtol=1e-5)]
    if not fitting:
        return None
    _, numbers, whats, reasons = zip(*fitting, strict=True)  # a batch of 10, and 10 units
    exactly = f"it is exactly {numbers[0]} times the numerical one{''.join(reasons)}"
    return f"{subject(found)} {' or '.join(whats)}: {exactly}"


def _ignored_option(tested: LayerUnderTest, found: Comparison) -> str | None:
    """Give each option that is a number the values 0, 1 and its default."""
    owner: Any = getattr(tested.layer, "loss", tested.layer)
    for option in fields(owner) if is_dataclass(owner) else ():
        value = getattr(owner, option.name)
        if not isinstance(value, (int, float)) or option.name == "units":
            continue
        for other in {0, 1, option.default} - {value}:
            if not isinstance(other, (int, float)):
                continue
            try:
                setattr(owner, option.name, other)
                numerical = tested.numerical(found.name, found.places)
                analytic = tested.backpropagate()[found.name].reshape(-1)[found.places]
            except (LayerError, ArithmeticError, ValueError):
                continue
            finally:
                setattr(owner, option.name, value)
            half = (
                "backward"
                if explains(found, found.analytic, numerical)
                else "forward"
                if explains(found, analytic, found.numerical)
                else None
            )
            if half:
                return (
                    f"{subject(found)} is that of {option.name} {other}: "
                    f"{half} forgets {option.name}, which is {value}"
                )
    return None


def _ignored_weight(tested: LayerUnderTest, found: Comparison) -> str | None:
    """Try each parameter at 1."""
    for name, weight in tested.weights.items():
        with tested.set_to(tested.x, tested.weights | {name: np.ones_like(weight)}):
            numerical = tested.numerical(found.name, found.places)
        if explains(found, found.analytic, numerical):
            return f"{subject(found)} is that of a layer whose {name} is 1: backward forgets {name}"
    return None


def _ignored_dout(tested: LayerUnderTest, found: Comparison) -> str | None:
    r = tested.r
    tested.r = 2 * r
    doubled = tested.backpropagate()[found.name]
    tested.r = r
    if np.array_equal(doubled, found.full):
        return f"{subject(found)} forgets dout: the chain rule multiplies by it"
    return None


def _stale(tested: LayerUnderTest, found: Comparison) -> str | None:
    """Compare with the batch before, and with what comes out whatever has gone in."""
    with tested.set_to(tested.other, tested.earlier):
        before = tested.numerical(found.name, found.places)
        again = tested.backpropagate()[found.name]
    frozen = np.array_equal(again, found.full) and not matches(before, found.numerical)
    if frozen or explains(found, found.analytic, before):
        return (
            f"{subject(found)} is that of an earlier batch: {BACKWARD} uses a stale cache, "
            "something that forward kept then and has not renewed"
        )
    return None


def _accumulated(tested: LayerUnderTest, found: Comparison) -> str | None:
    before = tested.backpropagate()[found.name]
    added = tested.backward()[found.name] - before
    if matches(added.reshape(-1)[found.places], found.numerical):
        return f"{subject(found)} is added to what was there: set it with = in place of +="
    return None


def _passed_on(tested: LayerUnderTest, found: Comparison) -> str | None:
    if found.name == "input" and np.array_equal(found.full, tested.r):
        return "the input gradient is dout unchanged: the layer's own derivative is missing"
    return None


def _transposed(tested: LayerUnderTest, found: Comparison) -> str | None:
    n = found.numerical
    if found.full.ndim == 2 and found.full.shape[0] == found.full.shape[1]:
        turned = found.full.T.reshape(-1)[found.places]
        if matches(turned, n):
            return f"{subject(found)} is transposed"
    for name, weight in tested.weights.items():
        if found.name != "input" or weight.ndim != 2 or weight.shape[0] != weight.shape[1]:
            continue
        tested.deterministic.forward(tested.x)
        before = weight.copy()
        weight[...] = before.T
        turned = tested.backward()["input"].reshape(-1)[found.places]
        weight[...] = before
        if matches(turned, n):
            return f"the input gradient is computed with its {name} transposed the wrong way"
    return None


def _shifted(tested: LayerUnderTest, found: Comparison) -> str | None:
    """Compare each entry's local derivative with those beside it."""
    complete = len(found.places) == found.full.size
    if found.name != "input" or not complete or found.full.shape != tested.r.shape:
        return None
    a, n = found.full / tested.r, found.numerical.reshape(found.full.shape) / tested.r
    for axis, what in ((1, "unit"), (0, "sample")):
        for shift in (1, -1):
            inner = [slice(None), slice(None)]
            inner[axis] = slice(1, -1) if n.shape[axis] > 3 else slice(None)
            place = tuple(inner)
            if matches(np.roll(a, shift, axis)[place].ravel(), n[place].ravel()):
                return f"the input gradient uses the derivative of the {what} beside: off by one"
    return None


def _mixed(tested: LayerUnderTest, found: Comparison) -> str | None:
    """See whether the other samples change a sample's gradient, but not its output."""
    if found.name != "input" or len(tested.x) < 2:
        return None
    others = np.arange(len(tested.x)) % 2 == 1
    changed = tested.x.copy()
    changed[others] = jittered(changed, tested.rng)[others]
    with tested.set_to(changed, tested.jittered):
        numerical = tested.numerical("input", found.places)
        analytic = tested.backpropagate()["input"]
    kept = ~others[found.places // tested.x.shape[1]]
    if matches(numerical[kept], found.numerical[kept]) and not matches(
        analytic[~others], found.full[~others]
    ):
        return (
            "the input gradient of a sample changes with the other samples: something is taken "
            "over the whole batch, as a softmax without its axis, that belongs to one sample"
        )
    return None


def _batch_terms(tested: LayerUnderTest, found: Comparison) -> str | None:
    """See whether the error of each unit is made of 1 and of its centred input."""
    complete = len(found.places) == found.full.size
    if found.name != "input" or not complete or found.full.shape != tested.r.shape:
        return None
    if tested.deterministic.treats_samples_apart(tested.x, tested.other):
        return None  # no sample feels another
    error = found.full - found.numerical.reshape(found.full.shape)
    mean = error.mean(axis=0)
    centred = tested.x - tested.x.mean(axis=0)
    square = np.einsum("ij,ij->j", centred, centred)
    along = centred * (np.einsum("ij,ij->j", error, centred) / np.where(square, square, 1))
    for part, what in ((mean + 0 * error, "mean"), (along, "variance"), (mean + along, "both")):
        if matches(part.ravel(), error.ravel()):
            what = "mean and variance" if what == "both" else what
            return (
                "the input gradient has a wrong term: it does not follow how each sample "
                f"moves the batch's {what}"
            )
    return None


def _constant_factor(tested: LayerUnderTest, found: Comparison) -> str | None:
    ratio = _ratio(found)
    if ratio is None:
        return None
    return f"{subject(found)} is {ratio:.6g} times the numerical one: a constant factor is wrong"


def _input_range(tested: LayerUnderTest, found: Comparison) -> str | None:
    """Say so if the entries that failed are those whose input lies in a range."""
    failed = found.failed
    if found.name != "input" or found.full.shape != tested.r.shape or failed.all():
        return None
    x = tested.x.reshape(-1)[found.places]
    low, high = x[failed].min(), x[failed].max()
    inside = (x >= low) & (x <= high)
    if failed.sum() < RANGE_ENTRIES or inside.sum() != failed.sum():
        return None
    return f"the input gradient is wrong for inputs from {low:.3g} to {high:.3g} only"


def _somewhere(tested: LayerUnderTest, found: Comparison) -> str | None:
    failed = found.failed
    return (
        f"{subject(found)} is wrong at {failed.sum():,} of {len(failed):,} entries, by no constant "
        "factor: compare the equation of backward with the derivative of that of forward"
    )


CAUSES: tuple[Callable[[LayerUnderTest, Comparison], str | None], ...] = (
    _not_finite,
    _at_kinks,
    _missing,
    _telling_ratio,
    _passed_on,
    _ignored_dout,
    _ignored_option,
    _ignored_weight,
    _stale,
    _accumulated,
    _transposed,
    _input_range,
    _shifted,
    _mixed,
    _batch_terms,
    _constant_factor,
    _somewhere,
)


def describe(found: Comparison) -> str:
    """Return how a parameter's gradient in a whole step is wrong, as the end of a sentence."""
    if not found.analytic[found.failed].any():
        return "is left at 0"
    ratio = _ratio(found)
    if ratio is None:
        return "is wrong"
    return (
        "has the wrong sign" if np.isclose(ratio, -1) else f"is {ratio:.6g} times what it should be"
    )
