"""What training sees in place of the plain images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from nnctl.datasets import augmentation
from nnctl.datasets.augmentation import (
    ANGLE,
    CHUNK,
    ONE,
    SCALE_X,
    SCALE_Y,
    SHEAR,
    STRENGTH,
    Augmentation,
    Augmenter,
    Elastic,
    Resampler,
    random_numbers,
    smooth_field,
    split_mix,
)
from nnctl.nn.functions import Array

EVERYTHING = Augmentation(
    shift=2, rotate=15, scale=0.15, shear=0.15, elastic=Elastic(strength=2, smoothness=4)
)
ACROSS, DOWN = augmentation.ACROSS, augmentation.DOWN
Draw = Callable[..., None]


def random_images(count: int, pixels: int) -> Array:
    return np.random.default_rng(count).integers(0, 256, (count, pixels), np.uint8)


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> Draw:
    """Have each image draw the middle of every range, but the end of those that are named."""

    def numbers(*ends: int, low: bool = False, corners: Sequence[float] = (0.5,)) -> None:
        def fixed(seed: int, epoch: int, indices: Array) -> Array:
            numbers = np.full((len(indices), augmentation.NUMBERS), 0.5)
            numbers[:, ends] = 0 if low else 1
            numbers[:, augmentation.WINDOWS] = corners
            return numbers

        monkeypatch.setattr(augmentation, "random_numbers", fixed)

    return numbers


def augmented(options: Augmentation, *images: object) -> Array:
    stack = np.array(images, np.uint8)
    change = Augmenter(options, stack.reshape(len(stack), -1), stack.shape[1:], seed=0)
    return change(1, np.arange(len(stack))).reshape(stack.shape)


# What an image becomes.


def test_augmentation_by_nothing_leaves_every_byte() -> None:
    images = random_images(70, 784)
    for shape in ((28, 28), (14, 56), (1, 784)):
        change = Augmenter(Augmentation(), images, shape, seed=0)
        np.testing.assert_array_equal(change(1, np.arange(70)), images)


def test_augmentation_by_whole_pixels_moves_them_and_fills_with_0(draw: Draw) -> None:
    draw(ACROSS)
    assert augmented(Augmentation(shift=1), [[1, 2, 3], [4, 5, 6]]).tolist() == [
        [[2, 3, 0], [5, 6, 0]]
    ]
    draw(DOWN, low=True)
    assert augmented(Augmentation(shift=1), [[1, 2, 3], [4, 5, 6]]).tolist() == [
        [[0, 0, 0], [1, 2, 3]]
    ]


def test_augmentation_by_a_part_of_a_pixel_weights_its_neighbours(draw: Draw) -> None:
    draw(ACROSS)
    [[row]] = augmented(Augmentation(shift=0.25), [[100, 200, 0]])
    assert row.tolist() == [125, 150, 0]  # 3/4 and 1/4
    draw(ACROSS, DOWN)
    [square] = augmented(Augmentation(shift=0.5), [[100, 200], [40, 60]])
    assert square.tolist() == [[100, 65], [25, 15]]  # means of four, those outside are 0


def test_augmentation_turns_about_the_centre(draw: Draw) -> None:
    image = random_images(1, 25).reshape(5, 5)
    draw(ANGLE)
    np.testing.assert_array_equal(augmented(Augmentation(rotate=90), image)[0], np.rot90(image))
    np.testing.assert_array_equal(augmented(Augmentation(rotate=180), image)[0], image[::-1, ::-1])


def test_augmentation_scales_from_the_centre(draw: Draw) -> None:
    row, twice_as_large = [0, 0, 80, 40, 0], [0, 40, 80, 60, 40]
    options, column = Augmentation(scale=0.5), [[pixel] for pixel in row]
    draw(SCALE_X, low=True)  # what is shown comes from half as far
    assert augmented(options, [row]).tolist() == [[twice_as_large]]
    assert augmented(options, column).tolist() == [column]
    draw(SCALE_Y, low=True)
    assert augmented(options, [row]).tolist() == [[row]]
    assert augmented(options, column)[0, :, 0].tolist() == twice_as_large


def test_augmentation_shears_rows_in_proportion_to_their_height(draw: Draw) -> None:
    image = [[0, 100, 0]] * 5
    draw(SHEAR)
    [sheared] = augmented(Augmentation(shear=0.5), image)
    assert sheared.tolist() == [
        [0, 0, 100],
        [0, 50, 50],
        [0, 100, 0],
        [50, 50, 0],
        [100, 0, 0],
    ]


@pytest.mark.parametrize("low", [True, False])
def test_augmentation_bends_along_two_windows_of_the_field(draw: Draw, low: bool) -> None:
    corners = [0.5, 0.25, 0.125, 0.75]  # of SHEET: row and column, for across and for down
    draw(STRENGTH, low=low, corners=corners)
    ramp = np.tile(np.arange(20, dtype=np.uint8) * 10, (20, 1))
    across, down = augmented(Augmentation(elastic=Elastic(1.5, 6)), ramp, ramp.T)
    field = smooth_field(6, augmentation.SHEET + 20, 0)
    inner = slice(4, -4)
    for bent, plain, (row, column) in (
        (across, ramp, (256, 128)),
        (down, ramp.T, (64, 384)),
    ):
        window = field[row : row + 20, column : column + 20]
        expected = plain + (-15 if low else 15) * window
        np.testing.assert_allclose(bent[inner, inner], expected[inner, inner], atol=1)
        assert np.ptp(window[inner, inner]) > 0.2


def test_augmentation_of_everything_is_one_bilinear_look_into_the_image() -> None:
    """Against the definition, in floating point and pixel by pixel."""
    rng = np.random.default_rng(3)
    images = random_images(5, 6 * 9).reshape(5, 6, 9)
    x = np.round(rng.uniform(-3, 12, (5, 6, 9)) * ONE) / ONE
    y = np.round(rng.uniform(-3, 9, (5, 6, 9)) * ONE) / ONE
    framed = np.pad(images, ((0, 0), (5, 5), (5, 5))).astype(float)
    expected = np.zeros(images.shape)
    for place in np.ndindex(images.shape):
        column, row = math.floor(x[place]), math.floor(y[place])
        right, lower = x[place] - column, y[place] - row
        square = framed[place[0], row + 5 : row + 7, column + 5 : column + 7]
        expected[place] = [1 - lower, lower] @ square @ [1 - right, right]
    fixed = ((place * ONE).astype(np.float32) for place in (x, y))
    found = Resampler(8, (6, 9))(images, *fixed)
    np.testing.assert_array_equal(found, np.floor(expected + 0.5))


def test_position_is_rounded_to_a_256th_of_a_pixel() -> None:
    images, y = np.array([[[0, 255]]], np.uint8), np.zeros((1, 1, 1), np.float32)
    for part, expected in ((0.4, 0), (0.6, 1), (1.4, 1), (1.6, 2)):
        x = np.full((1, 1, 2), part, np.float32)
        assert Resampler(1, (1, 2))(images, x, y.copy())[0, 0, 0] == expected


def test_augmentation_far_beyond_the_edge_is_dark(draw: Draw) -> None:
    bright = np.full((1, 12, 12), 255, np.uint8)
    for far in (12, 1000):
        draw(ACROSS)
        assert not augmented(Augmentation(shift=far), *bright).any()
        draw(DOWN, low=True)
        assert not augmented(Augmentation(shift=far), *bright).any()


def test_augmentation_reaches_its_limits_and_stays_within_them() -> None:
    dot = np.zeros((2000, 15, 15), np.uint8)
    dot[:, 7, 7] = 240
    moved = augmented(Augmentation(shift=3), *dot).astype(float)
    mass = moved.sum(axis=(1, 2))
    across = (moved.sum(axis=1) @ np.arange(15)) / mass - 7
    down = (moved.sum(axis=2) @ np.arange(15)) / mass - 7
    for amount in (across, down):
        assert 2.95 < abs(amount).max() < 3.02
        assert abs(amount.mean()) < 0.2  # either way as often
        assert amount.std() == pytest.approx(3 / math.sqrt(3), rel=0.05)  # uniform
    assert abs(np.corrcoef(across, down)[0, 1]) < 0.1


# What it depends on.


def test_augmented_image_depends_on_seed_epoch_and_index_alone() -> None:
    images = random_images(150, 784)
    change = Augmenter(EVERYTHING, images, (28, 28), seed=5)
    order = np.random.default_rng(0).permutation(150)
    together = change(3, order)
    again = Augmenter(EVERYTHING, images, (28, 28), seed=5)
    one_by_one = np.concatenate([again(3, order[place : place + 1]) for place in range(150)])
    np.testing.assert_array_equal(together, one_by_one)
    for size in (7, 64, 65):
        shares = [change(3, order[place : place + size]) for place in range(0, 150, size)]
        np.testing.assert_array_equal(together, np.concatenate(shares))


def test_augmented_image_is_another_in_every_epoch_and_for_every_seed_and_index() -> None:
    images = np.repeat(random_images(1, 784), 4, axis=0)
    for options in (
        Augmentation(shift=1),
        Augmentation(rotate=10),
        Augmentation(scale=0.1),
        Augmentation(shear=0.1),
        Augmentation(elastic=Elastic(1.0)),
    ):
        seen = [
            image.tobytes()
            for seed in (0, 1)
            for epoch in (1, 2)
            for image in Augmenter(options, images, (28, 28), seed)(epoch, np.arange(4))
        ]
        assert len(set(seen)) == 16, options


def test_augmentation_keeps_an_amount_whatever_else_is_asked_for() -> None:
    dot = np.zeros((20, 15, 15), np.uint8)
    dot[:, 7, 7] = 255
    shifted = augmented(Augmentation(shift=3), *dot)
    turned = augmented(Augmentation(shift=3, rotate=1e-4), *dot)
    assert abs(shifted.astype(int) - turned).max() <= 2


def test_augmenter_writes_where_it_is_told_and_leaves_the_images() -> None:
    images = random_images(30, 784)
    images.setflags(write=False)
    change = Augmenter(EVERYTHING, images, (28, 28), seed=0)
    out = np.zeros((10, 784), np.uint8)
    assert change(1, np.arange(10), out=out) is out
    np.testing.assert_array_equal(out, change(1, np.arange(10)))


def test_augmenter_takes_images_larger_than_its_chunks() -> None:
    side = math.isqrt(CHUNK) + 10
    images = random_images(2, side * side)
    change = Augmenter(Augmentation(), images, (side, side), seed=0)
    np.testing.assert_array_equal(change(1, np.array([1, 0])), images[::-1])


# Its random numbers.


def test_split_mix_gives_the_numbers_that_are_known_of_it() -> None:
    """The first numbers of SplitMix64 with seed 0 and with seed 1234567, from its reference."""
    places = np.arange(3, dtype=np.uint64)
    assert split_mix(np.uint64(0), places).tolist() == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]
    assert split_mix(np.uint64(1234567), places).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_random_numbers_are_uniform_and_tell_images_apart() -> None:
    numbers = random_numbers(0, 1, np.arange(20_000))
    assert numbers.min() >= 0
    assert numbers.max() < 1
    np.testing.assert_allclose(numbers.mean(axis=0), 0.5, atol=0.01)
    np.testing.assert_allclose(numbers.var(axis=0), 1 / 12, atol=0.002)
    neighbours = np.concatenate([numbers, np.roll(numbers, 1, axis=0)], axis=1)
    np.testing.assert_allclose(np.corrcoef(neighbours.T), np.eye(32), atol=0.04)


def test_field_belongs_to_the_seed() -> None:
    images = random_images(3, 784)
    options = Augmentation(elastic=Elastic(2))
    fields = [Augmenter(options, images, (28, 28), seed)._field for seed in (0, 0, 1)]
    np.testing.assert_array_equal(fields[0], fields[1])
    assert abs((fields[0] * fields[2]).mean()) < 0.1


@pytest.mark.parametrize("smoothness", [1.0, 5.0, 20.0])
def test_field_is_smooth_over_its_smoothness(smoothness: float) -> None:
    """Noise under a Gaussian of width s is correlated as exp(-distance^2 / (4 s^2))."""
    field = smooth_field(smoothness, 512, seed=0).astype(float)
    assert np.square(field).mean() == pytest.approx(1, rel=1e-3)
    for distance in (round(smoothness), round(2 * smoothness)):
        expected = math.exp(-(distance**2) / (4 * smoothness**2))
        for axis in (0, 1):
            found = (field * np.roll(field, distance, axis)).mean()
            assert found == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"shift": -1}, "shift must be at least 0, not -1"),
        ({"rotate": 181}, "rotate must be at most 180, not 181"),
        ({"scale": 1}, "scale must be below 1, not 1"),
        ({"shear": -0.1}, "shear must be at least 0, not -0.1"),
    ],
)
def test_augmentation_refuses_what_is_out_of_bounds(
    options: dict[str, float], complaint: str
) -> None:
    with pytest.raises(ValueError, match=f"^{complaint}$"):
        Augmentation(**options)  # type: ignore[arg-type]
