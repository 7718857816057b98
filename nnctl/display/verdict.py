"""The verdict on overfitting, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnctl.training.overfitting import STANDARD_ERRORS


def describe(verdict: Mapping[str, Any], monitored: str) -> str:
    """Return what a `Verdict` says, for a person: a line, and what to try if need be.

    `verdict` has the fields of `Verdict`; `monitored` is validation or test.
    """
    said = _judgement(verdict, f"the {monitored} loss")
    if monitored == "test":
        said += "\nJudged by the test set, as no validation set was held out (data.validation)."
    return said


def _judgement(verdict: Mapping[str, Any], curve: str) -> str:
    evidence = verdict["evidence"]
    best, rise, error = (evidence[key] for key in ("best_epoch", "loss_rise", "standard_error"))
    match verdict["verdict"]:
        case "overfitting":
            return (
                f"Overfitting since epoch {verdict['since_epoch']}: {curve} has risen by "
                f"{rise:.3g} from its best at epoch {best}, while the training loss fell. Chance "
                f"alone would move it by about {error:.2g}.\n"
                "Try fewer epochs (training.early_stopping), more images, dropout, "
                "optimizer.weight_decay or a smaller network."
            )
        case "underfitting" if error and rise > STANDARD_ERRORS * error:
            return (
                "Underfitting: the network has not learnt even the images it was shown, and "
                f"{curve} ended {rise:.3g} above its best, at epoch {best}.\n"
                "Try a lower learning rate."
            )
        case "underfitting":
            return (
                "Underfitting: the network has not learnt even the images it was shown.\n"
                "Try more epochs, a higher learning rate, or more units."
            )
        case "none" if not rise:
            return f"No overfitting: {curve} ended at its lowest."
        case "none":
            end = f"No overfitting: {curve} ended {rise:.3g} above its best, at epoch {best}"
            if error is not None and rise <= error:
                return f"{end}, which is within chance: its standard error is {error:.2g}."
            return f"{end}: too little to matter, or the training loss rose as well."
    if best is None:
        return "Overfitting is undecided: no epoch was finished."
    if rise is None:
        return "Overfitting is undecided: training diverged."
    if error is None:
        return (
            f"Overfitting is undecided: {curve} is the mean of too few images.\n"
            "Hold more out (data.validation)."
        )
    if rise > STANDARD_ERRORS * error or rise <= 0:
        return "Overfitting is undecided: too few epochs to tell.\nTrain longer."
    return (
        f"Overfitting is undecided: {curve} ended {rise:.3g} above its best, at epoch {best}, "
        f"which can be chance: its standard error is {error:.2g}.\n"
        "Train longer, or hold more images out (data.validation)."
    )
