"""The verdict on a run, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnctl.training.overfitting import STANDARD_ERRORS


def describe_end(summary: Mapping[str, Any], monitored: str) -> str:
    """Return what the verdict of a run says; `summary` has the fields of `run_finished`."""
    ended = summary["status"] != "interrupted"
    return describe(summary["overfitting"], summary, monitored, ended=ended)


def describe(
    verdict: Mapping[str, Any], figures: Mapping[str, Any], monitored: str, *, ended: bool
) -> str:
    """Return what a `Verdict` says, for a person: a line, then the cause, and what to try.

    `verdict` has the fields of `Verdict`, `figures` those of an epoch or a summary; `monitored`
    is validation or test. A run that has not `ended` is spoken of as it stands so far.
    """
    lines = [_judgement(verdict, figures, monitored, ended=ended)]
    if not ended:
        lines[0] = f"So far: {lines[0][0].lower()}{lines[0][1:]}"
    if message := verdict["message"]:
        lines.append(f"{message[0].upper()}{message[1:]}.")
    if remedy := verdict["remedy"]:
        lines.append(f"Remedy: {remedy}." if verdict["cause"] else f"Try {remedy}.")
    if monitored == "test":
        lines.append("Judged by the test set, as no validation set was held out (data.validation).")
    return "\n".join(lines)


def _judgement(
    verdict: Mapping[str, Any], figures: Mapping[str, Any], monitored: str, *, ended: bool
) -> str:
    """Return the first line of what is said, as at the end of a run or in the middle of it."""
    curve, evidence = f"the {monitored} loss", verdict["evidence"]
    best, rise, error = (evidence[key] for key in ("best_epoch", "loss_rise", "standard_error"))
    stands = "ended" if ended else "is"
    match verdict["verdict"]:
        case "not_learning" if since := verdict["since_epoch"]:
            return (
                f"Not learning: what was learnt by epoch {best} is lost again. Since epoch {since} "
                f"the {monitored} images come out right no more often than by guessing."
            )
        case "not_learning":
            return (
                f"Not learning: {figures[f'{monitored}_accuracy']:.1%} of the {monitored} images "
                "come out right, no more than by guessing."
            )
        case "overfitting":
            return (
                f"Overfitting since epoch {verdict['since_epoch']}: {curve} has risen by "
                f"{rise:.3g} from its best at epoch {best}, while the training loss fell. Chance "
                f"alone would move it by about {error:.2g}."
            )
        case "underfitting":
            said = (
                f"Underfitting: {figures['train_accuracy']:.1%} of the training images come out "
                "right, so the network has not learnt even what it was shown"
            )
            if error and rise > STANDARD_ERRORS * error:
                said += f"; {curve} {stands} {rise:.3g} above its best, at epoch {best}"
            return f"{said}."
        case "none":
            # Beside a large gap, "no overfitting" would be half the truth.
            name = "No overfitting" if verdict["message"] is None else "No rise"
            if not rise:
                return f"{name}: {curve} {stands} at its lowest."
            end = f"{name}: {curve} {stands} {rise:.3g} above its best, at epoch {best}"
            if error is not None and rise <= error:
                return f"{end}, which is within chance: its standard error is {error:.2g}."
            return f"{end}: too little to matter, or the training loss rose as well."
    if best is None:
        return "Overfitting is undecided: no epoch was finished."
    if rise is None:
        return "Overfitting is undecided: training diverged."
    if error is None:
        return (
            f"Overfitting is undecided: {curve} is the mean of too few images. Hold more out "
            "(data.validation)."
        )
    if rise > STANDARD_ERRORS * error or rise <= 0:
        longer = " Train longer." if ended else ""
        return f"Overfitting is undecided: too few epochs to tell.{longer}"
    return (
        f"Overfitting is undecided: {curve} {stands} {rise:.3g} above its best, at epoch {best}, "
        f"which can be chance: its standard error is {error:.2g}. Train longer, or hold more "
        "images out (data.validation)."
    )
