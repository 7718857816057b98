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
) -> dict[str, Any]:
    evidence = {"best_epoch": best, "loss_rise": rise, "standard_error": error}
    return {"verdict": kind, "since_epoch": since, "gap": 0.5, "evidence": evidence}


def test_overfitting_is_told_with_epochs_figures_and_what_to_try() -> None:
    said, advice = describe(verdict("overfitting", since=10), "validation").split("\n")
    for part in ("since epoch 10", "validation loss", "0.213", "epoch 8", "0.011", "Chance"):
        assert part in said
    for part in ("early_stopping", "dropout", "weight_decay", "more images"):
        assert part in advice


def test_underfitting_is_told_with_what_to_try() -> None:
    assert "Try more epochs" in describe(verdict("underfitting", rise=0.0), "validation")
    assert "lower learning rate" in describe(verdict("underfitting"), "validation")


def test_none_tells_where_the_loss_ended() -> None:
    assert "ended at its lowest" in describe(verdict("none", rise=0.0), "validation")
    assert "0.213 above its best, at epoch 8: too little" in describe(verdict("none"), "validation")
    assert "within chance" in describe(verdict("none", rise=0.0105), "validation")


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
    assert reason in describe(case, "validation")


@pytest.mark.parametrize("kind", ["overfitting", "none", "underfitting", "undecided"])
def test_watching_the_test_set_is_said(kind: str) -> None:
    said = describe(verdict(kind, since=10), "test")
    assert said.endswith(
        "Judged by the test set, as no validation set was held out (data.validation)."
    )
    assert "validation loss" not in said
    assert "Judged" not in describe(verdict(kind, since=10), "validation")
