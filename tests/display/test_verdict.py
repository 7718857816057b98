"""The words for each verdict."""

from __future__ import annotations

from typing import Any

import pytest

from nnctl.display.verdict import describe


def verdict(
    kind: str,
    best: int | None = 8,
    rise: float | None = 0.2134,
    error: float | None = 0.0111,
    since: int | None = None,
    **more: Any,
) -> dict[str, Any]:
    evidence = {"best_epoch": best, "loss_rise": rise, "standard_error": error}
    told = {"cause": None, "message": None, "remedy": None} | more
    return {"verdict": kind, "since_epoch": since, "gap": 0.5, "evidence": evidence, **told}


FIGURES = {"train_accuracy": 0.312, "validation_accuracy": 0.1, "test_accuracy": 0.12}


def said(found: dict[str, Any], monitored: str = "validation", *, ended: bool = True) -> str:
    return describe(found, FIGURES, monitored, ended=ended)


def test_overfitting_is_told_with_epochs_figures_and_what_to_try() -> None:
    found = verdict("overfitting", since=10, remedy="more images or dropout")
    first, advice = said(found).split("\n")
    for part in ("since epoch 10", "validation loss", "0.213", "epoch 8", "0.011", "Chance"):
        assert part in first
    assert advice == "Try more images or dropout."


def test_not_learning_is_told_with_its_cause_and_remedy() -> None:
    cause: dict[str, Any] = {
        "cause": "dead_units",
        "message": "64 of 64 are dead",
        "remedy": "step less",
    }
    assert said(verdict("not_learning", **cause)).split("\n") == [
        "Not learning: 10.0% of the validation images come out right, no more than by guessing.",
        "64 of 64 are dead.",
        "Remedy: step less.",
    ]
    lost = said(verdict("not_learning", best=3, since=4, **cause)).split("\n")[0]
    assert "what was learnt by epoch 3 is lost again. Since epoch 4" in lost


def test_underfitting_is_told_with_what_was_learnt() -> None:
    assert "31.2% of the training images" in said(verdict("underfitting", rise=0.0))
    assert "ended 0.213 above its best, at epoch 8" in said(verdict("underfitting"))


def test_none_tells_where_the_loss_ended() -> None:
    assert (
        said(verdict("none", rise=0.0))
        == "No overfitting: the validation loss ended at its lowest."
    )
    assert "0.213 above its best, at epoch 8: too little" in said(verdict("none"))
    assert "within chance" in said(verdict("none", rise=0.0105))


def test_gap_that_remains_is_never_called_no_overfitting() -> None:
    found = verdict("none", rise=0.0, message="but a gap remains", remedy="more images")
    assert said(found).split("\n") == [
        "No rise: the validation loss ended at its lowest.",
        "But a gap remains.",
        "Try more images.",
    ]


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (verdict("undecided", best=None, rise=None, error=None), "no epoch"),
        (verdict("undecided", rise=None, error=None), "diverged"),
        (verdict("undecided", error=None), "too few images"),
        (verdict("undecided"), "too few epochs"),
        (verdict("undecided", rise=0.0), "too few epochs"),
        (verdict("undecided", rise=0.02), "can be chance"),
    ],
)
def test_undecided_tells_why(case: dict[str, Any], reason: str) -> None:
    assert reason in said(case)


@pytest.mark.parametrize(
    "found",
    [
        verdict("none", rise=0.0),
        verdict("none"),
        verdict("underfitting"),
        verdict("undecided"),
        verdict("undecided", rise=0.02),
        verdict("overfitting", since=10),
        verdict("not_learning"),
    ],
)
def test_verdict_in_the_middle_of_a_run_is_not_worded_as_one_of_its_end(
    found: dict[str, Any],
) -> None:
    so_far = said(found, ended=False)
    assert so_far.startswith("So far: ")
    assert "ended" not in so_far
    assert "So far" not in said(found)


@pytest.mark.parametrize(
    "kind", ["overfitting", "none", "underfitting", "not_learning", "undecided"]
)
def test_watching_the_test_set_is_said(kind: str) -> None:
    words = said(verdict(kind, since=10), "test")
    assert words.endswith(
        "Judged by the test set, as no validation set was held out (data.validation)."
    )
    assert "validation loss" not in words
    assert "Judged" not in said(verdict(kind, since=10))
