"""Training images moved, turned, stretched and bent a little, anew in every epoch.

    augment = Augmenter(Augmentation(shift=1.5, rotate=10), images, (28, 28), seed=0)
    batch = augment(epoch, indices)  # (len(indices), pixels), uint8

Each pixel p of the new image, counted from the centre, shows what the old one has at

    q = A p + t + d(p),    A = rotation(angle) (1 shear; 0 1) diag(scale of x, scale of y)

between its pixels: bilinear interpolation, once, and 0 outside. The shift t, angle, scales and
shear of an image are its own, and so is the smooth field d that bends it (Simard et al. 2003,
"Best practices for convolutional neural networks", section 2). They are a function of (seed,
epoch, index) alone, whatever batch or process the image is made in.

Positions and pixels are fixed-point integers. So the same image is made to the bit anywhere, and
the four neighbours of a position fit into one integer: they are looked up once and weighted two
at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from nnctl.nn.functions import Array
from nnctl.nn.hyperparameters import Fraction, Hyperparameters, Range
from nnctl.nn.randomness import Concern, generator


@dataclass(frozen=True)
class Elastic(Hyperparameters):
    """How far and how finely images are bent."""

    strength: Annotated[float, Range(ge=0, le=100), "Pixels, root mean square at the most."] = 0.0
    smoothness: Annotated[
        float, Range(ge=0.5, le=64), "Pixels over which neighbours move alike: a Gaussian's sigma."
    ] = 5.0


@dataclass(frozen=True)
class Augmentation(Hyperparameters):
    """How much training images are changed; each image draws between minus and plus the value."""

    shift: Annotated[float, Range(ge=0, le=1000), "Pixels, across and down."] = 0.0
    rotate: Annotated[float, Range(ge=0, le=180), "Degrees."] = 0.0
    scale: Annotated[Fraction, "Fraction of the size, across and down."] = 0.0
    shear: Annotated[Fraction, "Pixels across for each pixel down."] = 0.0
    elastic: Annotated[Elastic, "A smooth field that bends the image."] = Elastic()


ONE = 256  # a pixel's width, and a weight of 1, in fixed point
CHUNK = 64 * 784  # pixels that are worked on at a time: they stay in the cache
SHEET = 512  # rows and columns of displacements, of which every image is given two windows
NUMBERS = 16  # of the epoch's random sequence belong to each image

# Which of an image's numbers decides what.
ACROSS, DOWN, ANGLE, SCALE_X, SCALE_Y, SHEAR, STRENGTH = range(7)
WINDOWS = slice(7, 11)  # row and column of the one that moves across, and of the one for down


class Augmenter:
    """Makes the images that an epoch sees in place of the plain ones."""

    def __init__(
        self, augmentation: Augmentation, images: Array, shape: tuple[int, int], seed: int
    ) -> None:
        """Change `images` (n, pixels), uint8, each of `shape` (rows, columns)."""
        self.augmentation, self.images, self.shape, self.seed = augmentation, images, shape, seed
        self._resample = Resampler(max(1, CHUNK // images.shape[1]), shape)
        self._x, self._y, self._bend = np.empty((3, self._resample.count, *shape), np.float32)
        if augmentation.elastic.strength:
            self._field = smooth_field(augmentation.elastic.smoothness, SHEET + max(shape), seed)

    def __call__(self, epoch: int, indices: Array, out: Array | None = None) -> Array:
        """Return the images at `indices` as `epoch` sees them, (len(indices), pixels), uint8.

        They are written into `out` if it is given.
        """
        if out is None:
            out = np.empty((len(indices), self.images.shape[1]), np.uint8)
        random = random_numbers(self.seed, epoch, indices)
        lines = self._lines(random)
        for start in range(0, len(indices), self._resample.count):
            part = slice(start, start + self._resample.count)
            images = self.images[indices[part]].reshape(-1, *self.shape)
            x, y = self._positions(random[part], *(line[part] for line in lines))
            out[part] = self._resample(images, x, y).reshape(len(images), -1)
        return out

    def _lines(self, random: Array) -> tuple[Array, Array, Array, Array]:
        """Return A p + t of n images with these numbers, times `ONE`, counted from the corner.

        Its two rows are sums of what p_x brings, (n, 1, columns), and p_y, (n, rows, 1).
        """
        wanted, (rows, columns) = self.augmentation, self.shape
        amount = (2 * random - 1).T[:, :, None, None]  # from -1 to 1; (numbers, n, 1, 1)
        angle = amount[ANGLE] * math.radians(wanted.rotate)
        shear = amount[SHEAR] * wanted.shear
        scale_x, scale_y = (1 + amount[which] * wanted.scale for which in (SCALE_X, SCALE_Y))
        cos, sin = np.cos(angle), np.sin(angle)
        c_x, c_y = (columns - 1) / 2, (rows - 1) / 2  # the centre
        p_x, p_y = np.arange(columns) - c_x, np.arange(rows)[:, None] - c_y
        return (
            _fixed(cos * scale_x * p_x + amount[ACROSS] * wanted.shift + c_x),
            _fixed((cos * shear - sin) * scale_y * p_y),
            _fixed(sin * scale_x * p_x),
            _fixed((sin * shear + cos) * scale_y * p_y + amount[DOWN] * wanted.shift + c_y),
        )

    def _positions(
        self, random: Array, x: Array, x_down: Array, y_across: Array, y: Array
    ) -> tuple[Array, Array]:
        """Return q of every pixel of n images, times `ONE`: its column and its row.

        Without rotation, shear and bending a column is the same for all rows, (n, 1, columns),
        and a row for all columns, (n, rows, 1).
        """
        count, strength = len(random), self.augmentation.elastic.strength
        if self.augmentation.rotate or self.augmentation.shear:
            x = np.add(x, x_down, out=self._x[:count])
            y = np.add(y, y_across, out=self._y[:count])
        if strength:
            factor = _fixed((2 * random[:, STRENGTH, None, None] - 1) * strength)
            top_x, left_x, top_y, left_y = (random[:, WINDOWS] * SHEET).astype(int).T
            x = np.add(x, self._bends(top_x, left_x, factor), out=self._x[:count])
            y = np.add(y, self._bends(top_y, left_y, factor), out=self._y[:count])
        return x, y

    def _bends(self, top: Array, left: Array, factor: Array) -> Array:
        """Return the windows of the field whose first corners these are, times `factor`."""
        rows, columns = self.shape
        bends = self._bend[: len(top)]
        for bend, row, column in zip(bends, top.tolist(), left.tolist(), strict=True):
            bend[...] = self._field[row : row + rows, column : column + columns]
        bends *= factor
        return bends


def random_numbers(seed: int, epoch: int, indices: Array) -> Array:
    """Return the numbers of the images at `indices`, (len(indices), NUMBERS), from 0 to below 1.

    Image i has those from NUMBERS i on of a sequence that belongs to the seed and epoch.
    """
    [start] = generator(seed, Concern.AUGMENTATION, epoch).integers(0, 2**64, 1, np.uint64)
    first = np.asarray(indices, np.uint64)[:, None] * np.uint64(NUMBERS)
    bits = split_mix(start, first + np.arange(NUMBERS, dtype=np.uint64))
    numbers: Array = (bits >> np.uint64(11)) * 2.0**-53
    return numbers


def split_mix(start: np.uint64, places: Array) -> Array:
    """Return the 64-bit numbers at `places`, from 0, of SplitMix64 seeded with `start`.

    Each is a function of its place alone (Steele, Lea and Flood 2014, "Fast splittable
    pseudorandom number generators", figures 16 and 17; shifts and factors: Stafford's variant 13).
    """
    z = start + (places + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    mixed: Array = z ^ (z >> np.uint64(31))
    return mixed


class Resampler:
    """Reads images between their pixels."""

    def __init__(self, count: int, shape: tuple[int, int]) -> None:
        """Lay out memory for `count` images of `shape` at a time; it is used again and again."""
        rows, columns = shape
        self.count, self.shape = count, shape
        self.stride = columns + 2  # each image stands in a frame of zeros
        self.size = (rows + 2) * self.stride
        self._framed = np.zeros(count * self.size + self.stride + 1, np.uint32)
        self._pairs, self._squares = np.empty((2, len(self._framed)), np.uint32)
        self._place = np.empty((2, count, rows, columns), np.int32)
        self._weight = np.empty((2, count, rows, columns), np.uint32)
        self._left, self._right = np.empty((2, count, rows, columns), np.uint32)

    def __call__(self, images: Array, x: Array, y: Array) -> Array:
        """Return what `images` (n, rows, columns), uint8, show at columns `x` and rows `y`.

        Both are float32, times `ONE`, one for each image, row and column, or with length 1 where
        it is the same for all; they are used up. Between pixels bilinear, rounded; 0 outside.
        """
        count, (rows, columns) = len(images), self.shape
        self._join(images)
        x, right_weight = self._split(0, x, columns)
        y, lower_weight = self._split(1, y, rows)
        y *= self.stride
        y += np.arange(count, dtype=np.int32)[:, None, None] * np.int32(self.size)
        left, right = self._left[:count], self._right[:count]
        place = np.add(x, y, out=left.view(np.int32))
        square = self._squares.take(place, out=right, mode="clip")
        # Two pixels go into one integer, 16 bits each: the left two of a square, the right two.
        np.bitwise_and(square, 0xFF00FF, out=left)
        right >>= 8
        right &= 0xFF00FF
        both = _between(left, right, right_weight)
        upper, lower = np.bitwise_and(both, 0xFFFF, out=right), both
        lower >>= 16
        value = _between(upper, lower, lower_weight)
        value += ONE * ONE // 2
        value >>= 16
        return value

    def _join(self, images: Array) -> None:
        """Put each pixel into one integer with those right of it, below, and below to the right."""
        count, rows = len(images), self.shape[0]
        end = count * self.size
        frames = self._framed[:end].reshape(count, rows + 2, self.stride)
        frames[:, 1:-1, 1:-1] = images
        stop = end + self.stride  # an image's last row in its frame has the next one below
        pairs = np.left_shift(self._framed[1 : stop + 1], 8, out=self._pairs[:stop])
        pairs |= self._framed[:stop]
        squares = np.left_shift(pairs[self.stride :], 16, out=self._squares[:end])
        squares |= pairs[:end]

    def _split(self, axis: int, position: Array, pixels: int) -> tuple[Array, Array]:
        """Return the pixel in the frame that `position` is right of or below, and the rest."""
        np.clip(position, -ONE, pixels * ONE, out=position)  # further out it is dark as well
        position += ONE + 0.5  # the frame comes first; to be rounded when it's cut
        where = tuple(map(slice, position.shape))
        place, weight = self._place[axis][where], self._weight[axis][where]
        place[...] = position
        np.bitwise_and(place, ONE - 1, out=weight.view(np.int32))
        place >>= 8
        return place, weight


def _between(one: Array, other: Array, weight: Array) -> Array:
    """Return `ONE` one + weight (other - one) in the place of `one`; `weight` is in `ONE`ths.

    With two pixels in one integer a difference may borrow from the other one; the sum pays back.
    """
    other -= one
    other *= weight
    one <<= 8
    one += other
    return one


def _fixed(position: Array) -> Array:
    """Return `position` times `ONE`, not yet cut."""
    return np.multiply(position, ONE, dtype=np.float32)


def smooth_field(smoothness: float, size: int, seed: int) -> Array:
    """Return a field (size, size) that is smooth over `smoothness` pixels; its mean square is 1.

    White noise is multiplied by a Gaussian's Fourier transform: exp(-2 pi^2 smoothness^2 f^2).
    """
    noise = generator(seed, Concern.AUGMENTATION).standard_normal((size, size))
    squared = np.fft.fftfreq(size)[:, None] ** 2 + np.fft.rfftfreq(size) ** 2
    low = np.fft.rfft2(noise) * np.exp(-2 * (math.pi * smoothness) ** 2 * squared)
    field = np.fft.irfft2(low, noise.shape)
    return (field / math.sqrt(np.square(field).mean())).astype(np.float32)
