"""A digit on a page becomes the image that MNIST would have made of it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnctl.datasets import Source, load
from nnctl.datasets.likeness import is_mnist_like
from nnctl.nn.functions import Array
from nnctl.pictures.preparation import (
    THICKEST,
    THINNEST,
    find_pieces,
    fit,
    prepare,
    resized,
    stroke_width,
    trim,
)
from tests.predict.conftest import difference


def digits(count: int) -> list[Array]:
    """Return test digits without their faintest pixels, still laid out as MNIST's are."""
    images = load("mnist-sample", Source()).test.images
    clear = [np.where(image < 60, 0, image) for image in images[: 9 * count]]
    good = [image for image in clear if is_mnist_like(image[None], (28, 28))]
    return [image.reshape(28, 28) for image in good[:count]]


def page(image: Array, times: int = 6, *, top: int = 11, left: int = 70) -> Array:
    """Return white paper with the digit on it, `times` as large."""
    ink = np.kron(image, np.ones((times, times), np.uint8))
    return 255 - np.pad(ink, ((top, 31), (left, 17)))


def line(*points: tuple[float, float], width: float, size: int = 200) -> Array:
    """Return ink (size, size) along a line through points, 0..1."""
    y, x = np.mgrid[0:size, 0:size]
    distance = np.full((size, size), np.inf)
    for (x0, y0), (x1, y1) in pairwise(points):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        distance = np.minimum(distance, np.hypot(x - x0 - along * dx, y - y0 - along * dy))
    return np.clip(width / 2 + 0.5 - distance, 0, 1)


def seven(width: float) -> Array:
    return 255 - (line((50, 50), (140, 50), (90, 170), width=width) * 255).astype(np.uint8)


def centre_of_mass(image: Array) -> tuple[float, float]:
    mass = image.sum()
    return tuple(float(image.sum(axis=axis) @ np.arange(28) / mass) for axis in (1, 0))  # type: ignore[return-value]


@pytest.mark.parametrize("image", digits(12))
def test_digit_blown_up_comes_back_pixel_for_pixel(image: Array) -> None:
    for grey, inverted in ((page(image), True), (255 - page(image), False)):
        stages = prepare(grey)
        assert stages.inverted is inverted
        [digit] = stages.digits
        assert digit.adjusted is None
        assert abs(digit.image.astype(int) - image).max() <= 4  # its darkest pixels may be 251


def test_place_and_size_on_the_page_do_not_matter() -> None:
    [image] = digits(1)
    expected = prepare(page(image)).digits[0].image
    for top, left, times in ((0, 0, 6), (150, 3, 5), (40, 200, 12)):
        [digit] = prepare(page(image, times, top=top, left=left)).digits
        assert abs(digit.image.astype(int) - expected).max() <= 1


def test_box_is_where_the_ink_lies() -> None:
    [image] = digits(1)
    rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    [digit] = prepare(page(image, 6, top=11, left=70)).digits
    assert digit.box == (
        70 + 6 * columns[0],
        11 + 6 * rows[0],
        70 + 6 * columns[-1] + 6,
        11 + 6 * rows[-1] + 6,
    )


@pytest.mark.parametrize("image", digits(6))
def test_light_that_falls_off_and_noise_change_little(image: Array) -> None:
    grey = page(image)
    rows, columns = grey.shape
    light = np.linspace(0.55, 1, columns) - np.linspace(-0.1, 0.1, rows)[:, None] ** 2 * 5
    noise = np.random.default_rng(0).normal(0, 4, grey.shape)
    shaded = np.clip((60 + 0.75 * grey) * light + noise, 0, 255).astype(np.uint8)
    [digit] = prepare(shaded).digits
    assert difference(digit.image, image) < 6


def test_specks_and_dark_corners_are_no_ink() -> None:
    [image] = digits(1)
    grey = page(image, top=40, left=90)
    expected = prepare(grey).digits[0].image
    rng = np.random.default_rng(0)
    for row, column in zip(rng.integers(0, 30, 20), rng.integers(0, 250, 20), strict=True):
        grey[row : row + 2, column : column + 2] = 0
    grey[-30:, :30] = 0
    [digit] = prepare(grey).digits
    assert (digit.image == expected).all()


@given(st.lists(st.tuples(st.floats(20, 180), st.floats(20, 180)), min_size=3, max_size=6))
@settings(max_examples=25)
def test_centre_of_mass_is_within_half_a_pixel_of_where_mnist_has_it(
    points: list[tuple[float, float]],
) -> None:
    moved = [(x + 0.01 * i, y + 0.013 * i) for i, (x, y) in enumerate(points)]
    [digit] = prepare(255 - (line(*moved, width=14) * 255).astype(np.uint8)).digits
    inside = digit.image[1:-1, 1:-1].sum() == digit.image.sum()  # nothing fell over the edge
    if inside:
        assert max(abs(place - 14) for place in centre_of_mass(digit.image)) <= 0.51


@pytest.mark.parametrize(("width", "adjusted"), [(2, "thickened"), (18, None), (60, "thinned")])
def test_strokes_are_brought_near_mnists(width: float, adjusted: str | None) -> None:
    [digit] = prepare(seven(width)).digits
    assert digit.adjusted == adjusted
    assert THINNEST < stroke_width(digit.image / 255) < THICKEST
    assert max(trim(digit.image).shape) == 20
    assert digit.stroke_width == pytest.approx(width * 20 / (120 + width), rel=0.25)


def test_thickening_leaves_full_ink_of_a_hair_line() -> None:
    [digit] = prepare(seven(1)).digits
    assert digit.image.max() >= 230


def test_stroke_width_is_a_bars_shorter_side() -> None:
    for width, length in ((4, 400), (10, 1000)):
        bar = np.ones((width, length))
        # its outline is 2 (width + length), its area their product
        expected = width * length / (width + length)
        assert stroke_width(bar) == pytest.approx(expected, rel=0.01)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 90))
@settings(max_examples=50)
def test_fit_keeps_the_mean_and_the_longest_side(rows: int, columns: int, longest: int) -> None:
    ink = np.random.default_rng(rows * columns).random((rows, columns))
    small = fit(ink, longest)
    assert max(small.shape) == longest
    assert small.mean() == pytest.approx(ink.mean())


def test_image_of_the_networks_own_kind_passes_untouched() -> None:
    [image] = digits(1)
    off_centre = np.roll(image, -3, axis=0)
    stages = prepare(off_centre)
    [digit] = stages.digits
    assert (digit.image == off_centre).all()
    assert digit.box is None
    # on white ground it is a page like others
    [inverted] = prepare(255 - off_centre).digits
    assert abs(inverted.image.astype(int) - image).max() <= 4


def test_invert_yes_and_no_overrule_what_it_looks_like() -> None:
    [image] = digits(1)
    assert prepare(page(image), dark_ink=True).inverted
    assert not prepare(page(image), dark_ink=False).inverted
    assert not prepare(page(image), dark_ink=False).digits


def test_several_digits_are_read_from_left_to_right() -> None:
    chosen = digits(5)
    strip = np.hstack([np.kron(image, np.ones((4, 4), np.uint8)) for image in chosen])
    found = prepare(255 - np.pad(strip, 20), several=True).digits
    assert len(found) == 5
    lefts = [digit.box.left for digit in found if digit.box is not None]
    assert lefts == sorted(lefts)
    assert len(lefts) == 5
    for digit, image in zip(found, chosen, strict=True):
        assert abs(digit.image.astype(int) - image).mean() < 2


def test_ink_that_touches_by_a_corner_is_one_piece() -> None:
    for stairs in (np.eye(20), np.fliplr(np.eye(20))):
        [piece] = find_pieces(np.pad(stairs, 3))
        assert piece.mass == 20
        assert piece.box == (3, 3, 23, 23)


def test_parts_above_each_other_are_one_digit() -> None:
    grey = np.full((200, 300), 255, np.uint8)
    grey[40:50, 30:90] = 0  # a bar, and a body below it that does not touch
    grey[60:150, 40:60] = 0
    grey[40:150, 200:215] = 0
    assert len(prepare(grey, several=True).digits) == 2


@pytest.mark.parametrize("level", [0, 128, 255])
def test_blank_page_holds_no_digit(level: int) -> None:
    for shape in ((1, 1), (3, 200), (28, 28), (300, 200)):
        assert prepare(np.full(shape, level, np.uint8)).digits == [] or shape == (28, 28)
    noisy = np.random.default_rng(0).normal(level, 3, (300, 200)).clip(0, 255)
    assert prepare(noisy.astype(np.uint8)).digits == []


def test_other_networks_get_the_picture_resized_alone() -> None:
    grey = np.kron(np.array([[10, 200], [60, 90]], np.uint8), np.ones((8, 8), np.uint8))
    [digit] = resized(grey, (2, 2), inverted=False).digits
    assert digit.image.tolist() == [[10, 200], [60, 90]]
    [digit] = resized(grey, (2, 2), inverted=True).digits
    assert digit.image.tolist() == [[245, 55], [195, 165]]
