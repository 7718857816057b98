"""How the numbers of a step are shown."""

import numpy as np

from nnctl.display.numbers import EQUATIONS, _rows
from nnctl.nn.layers import LAYERS


def test_every_layer_has_its_equations() -> None:
    assert set(EQUATIONS) == set(LAYERS)


def test_rows_that_are_too_wide_go_on_below() -> None:
    rows = list(_rows(np.arange(20.0), 30))
    assert [len(row.split()) for row in rows] == [7, 7, 6]
    assert " ".join(rows).split() == [str(n) for n in range(20)]


def test_numbers_are_written_in_one_form_for_each_array() -> None:
    assert list(_rows(np.array([[1.0, 0.0]]), 80)) == ["  1  0"]
    assert list(_rows(np.array([[0.5, -0.0]]), 80)) == ["  0.5000  0.0000"]
    assert list(_rows(np.array([1e-5, 2.5e-3]), 80)) == ["  1.000e-05  2.500e-03"]
    assert list(_rows(np.array([np.nan, np.inf]), 80)) == ["  nan  inf"]
