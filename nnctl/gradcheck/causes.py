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

from nnctl.gradcheck.finite_differences import TOLERANCE, Comparison, agrees_by_default, shaken
from nnctl.gradcheck.layer import Alone
from nnctl.nn.functions import Array
from nnctl.nn.numerical_gradient import H

BACKWARD = "backpropagation"
ASKED_TOO_MUCH = (
    f"{BACKWARD} agrees with the numerical gradient at h = {H:g} to {TOLERANCE:g}, so the step "
    "asked for is too large, or the tolerance too small"
)


def explain(alone: Alone, comparisons: list[Comparison]) -> str | None:
    """Return why a layer is wrong, as a sentence without its full stop; None if it is right.

    `comparisons` are those of the layer's input and parameters.
    """
    if alone.complaint is not None:
        return alone.complaint
    wrong = [found for found in comparisons if found.failed.any()]
    if not wrong:
        return None
    with np.errstate(all="ignore"), alone.seeing(alone.x, alone.shaken):
        wrong = [found for found in wrong if not _agrees(alone, found)]
        if not wrong:
            return ASKED_TOO_MUCH
        first, *others = wrong
        sentence = next(filter(None, (cause(alone, first) for cause in CAUSES)))
    if others:
        names = " and ".join(other.name for other in others)
        sentence += f"; the gradient of its {names} is wrong too"
    return sentence


def subject(found: Comparison) -> str:
    """Return what is wrong, as the subject of a sentence."""
    return "the input gradient" if found.name == "input" else f"the gradient of its {found.name}"


def matches(a: Array, b: Array) -> bool:
    """Return whether two gradients are the same but for a few entries, which may be kinks."""
    size = float(np.abs(b).max(initial=0))
    near = np.isclose(a, b, rtol=1e-5, atol=1e-7 * size)
    return size > 0 and bool(near.mean() >= 0.98)


def explains(found: Comparison, a: Array, b: Array) -> bool:
    """Return whether a supposition that makes `a` and `b` of the two gradients explains the error.

    They must match, and be much nearer than before where the check failed: a supposition that
    changes nothing matches, too, if only a few entries are wrong, or all but slightly.
    """
    error = np.abs(found.analytic - found.numerical)[found.failed]
    left = np.abs(a - b)[found.failed]
    return matches(a, b) and bool((left < error / 10).mean() >= 0.9)


def _agrees(alone: Alone, found: Comparison) -> bool:
    """Return whether what failed agrees by the default step and tolerance."""
    return agrees_by_default(found, alone.slopes(alone.dependence(found.name), found.places))


def _not_finite(alone: Alone, found: Comparison) -> str | None:
    if np.isfinite(found.analytic).all():
        return None
    return f"{subject(found)} is not finite"


def _missing(alone: Alone, found: Comparison) -> str | None:
    if found.full.any():
        return None
    if found.name != "input":
        now = alone.layer.gradients[found.name]
        if not np.shares_memory(now, alone.memory[found.name]) and now.any():
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


def _telling_ratio(alone: Alone, found: Comparison) -> str | None:
    ratio, batch = _ratio(found), len(alone.x)
    if ratio is None:
        return None
    units = max(alone.x.shape[1], alone.r.shape[1])
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


def _ignored_option(alone: Alone, found: Comparison) -> str | None:
    """Give each option that is a number the values 0, 1 and its default."""
    owner: Any = getattr(alone.layer, "loss", alone.layer)
    for option in fields(owner) if is_dataclass(owner) else ():
        value = getattr(owner, option.name)
        if not isinstance(value, (int, float)) or option.name == "units":
            continue
        for other in {0, 1, option.default} - {value}:
            if not isinstance(other, (int, float)):
                continue
            try:
                setattr(owner, option.name, other)
                numerical = alone.numerical(found.name, found.places)
                analytic = alone.backpropagate()[found.name].reshape(-1)[found.places]
            except (ArithmeticError, ValueError):
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


def _ignored_weight(alone: Alone, found: Comparison) -> str | None:
    """Try each parameter at 1."""
    for name, weight in alone.weights.items():
        with alone.seeing(alone.x, alone.weights | {name: np.ones_like(weight)}):
            numerical = alone.numerical(found.name, found.places)
        if explains(found, found.analytic, numerical):
            return f"{subject(found)} is that of a layer whose {name} is 1: backward forgets {name}"
    return None


def _ignored_dout(alone: Alone, found: Comparison) -> str | None:
    r = alone.r
    alone.r = 2 * r
    doubled = alone.backpropagate()[found.name]
    alone.r = r
    if np.array_equal(doubled, found.full):
        return f"{subject(found)} forgets dout: the chain rule multiplies by it"
    return None


def _stale(alone: Alone, found: Comparison) -> str | None:
    """Compare with the batch before, and with what comes out whatever has gone in."""
    with alone.seeing(alone.other, alone.earlier):
        before = alone.numerical(found.name, found.places)
        again = alone.backpropagate()[found.name]
    frozen = np.array_equal(again, found.full) and not matches(before, found.numerical)
    if frozen or explains(found, found.analytic, before):
        return (
            f"{subject(found)} is that of an earlier batch: {BACKWARD} uses a stale cache, "
            "something that forward kept then and has not renewed"
        )
    return None


def _accumulated(alone: Alone, found: Comparison) -> str | None:
    before = alone.backpropagate()[found.name]
    added = alone.backward()[found.name] - before
    if matches(added.reshape(-1)[found.places], found.numerical):
        return f"{subject(found)} is added to what was there: set it with = in place of +="
    return None


def _passed_on(alone: Alone, found: Comparison) -> str | None:
    if found.name == "input" and np.array_equal(found.full, alone.r):
        return "the input gradient is dout unchanged: the layer's own derivative is missing"
    return None


def _transposed(alone: Alone, found: Comparison) -> str | None:
    n = found.numerical
    if found.full.ndim == 2 and found.full.shape[0] == found.full.shape[1]:
        turned = found.full.T.reshape(-1)[found.places]
        if matches(turned, n):
            return f"{subject(found)} is transposed"
    for name, weight in alone.weights.items():
        if found.name != "input" or weight.ndim != 2 or weight.shape[0] != weight.shape[1]:
            continue
        alone.still.forward(alone.x)
        before = weight.copy()
        weight[...] = before.T
        turned = alone.backward()["input"].reshape(-1)[found.places]
        weight[...] = before
        if matches(turned, n):
            return f"the input gradient is computed with its {name} transposed the wrong way"
    return None


def _shifted(alone: Alone, found: Comparison) -> str | None:
    """Compare each entry's local derivative with those beside it."""
    complete = len(found.places) == found.full.size
    if found.name != "input" or not complete or found.full.shape != alone.r.shape:
        return None
    a, n = found.full / alone.r, found.numerical.reshape(found.full.shape) / alone.r
    for axis, what in ((1, "unit"), (0, "sample")):
        for shift in (1, -1):
            inner = [slice(None), slice(None)]
            inner[axis] = slice(1, -1) if n.shape[axis] > 3 else slice(None)
            place = tuple(inner)
            if matches(np.roll(a, shift, axis)[place].ravel(), n[place].ravel()):
                return f"the input gradient uses the derivative of the {what} beside: off by one"
    return None


def _mixed(alone: Alone, found: Comparison) -> str | None:
    """See whether the other samples change a sample's gradient, but not its output."""
    if found.name != "input" or len(alone.x) < 2:
        return None
    others = np.arange(len(alone.x)) % 2 == 1
    changed = alone.x.copy()
    changed[others] = shaken(changed, alone.rng)[others]
    with alone.seeing(changed, alone.shaken):
        numerical = alone.numerical("input", found.places)
        analytic = alone.backpropagate()["input"]
    kept = ~others[found.places // alone.x.shape[1]]
    if matches(numerical[kept], found.numerical[kept]) and not matches(
        analytic[~others], found.full[~others]
    ):
        return (
            "the input gradient of a sample changes with the other samples: something is taken "
            "over the whole batch, as a softmax without its axis, that belongs to one sample"
        )
    return None


def _batch_terms(alone: Alone, found: Comparison) -> str | None:
    """See whether the error of each unit is made of 1 and of its centred input."""
    complete = len(found.places) == found.full.size
    if found.name != "input" or not complete or found.full.shape != alone.r.shape:
        return None
    if alone.still.takes_copies(alone.x, alone.other):
        return None  # no sample feels another
    error = found.full - found.numerical.reshape(found.full.shape)
    mean = error.mean(axis=0)
    centred = alone.x - alone.x.mean(axis=0)
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


def _constant_factor(alone: Alone, found: Comparison) -> str | None:
    ratio = _ratio(found)
    if ratio is None:
        return None
    return f"{subject(found)} is {ratio:.6g} times the numerical one: a constant factor is wrong"


def _somewhere(alone: Alone, found: Comparison) -> str | None:
    """Say where, if the entries that failed are those whose input lies in a range."""
    failed = found.failed
    if found.name == "input" and found.full.shape == alone.r.shape and not failed.all():
        x = alone.x.reshape(-1)[found.places]
        low, high = x[failed].min(), x[failed].max()
        inside = (x >= low) & (x <= high)
        if inside.sum() == failed.sum() and not inside.all():
            return f"the input gradient is wrong for inputs from {low:.3g} to {high:.3g} only"
    return (
        f"{subject(found)} is wrong at {failed.sum():,} of {len(failed):,} entries, by no constant "
        "factor: compare the equation of backward with the derivative of that of forward"
    )


CAUSES: tuple[Callable[[Alone, Comparison], str | None], ...] = (
    _not_finite,
    _missing,
    _telling_ratio,
    _passed_on,
    _ignored_dout,
    _ignored_option,
    _ignored_weight,
    _stale,
    _accumulated,
    _transposed,
    _shifted,
    _mixed,
    _batch_terms,
    _constant_factor,
    _somewhere,
)
