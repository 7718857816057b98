"""From a picture of digits to images as MNIST has them, stage by stage.

A pure function of the pixels: page and ink are told apart, specks are dropped, the ink's box is
scaled until its longest side is 20 pixels, and its centre of mass goes to the centre of 28 x 28.
So MNIST's own digits were made (LeCun et al. 1998, "Gradient-based learning applied to document
recognition", section III.A), and that is what a network trained on them expects.

The drawing board that `nnctl export --format html` writes repeats these functions, name by name, in
`nnctl/export/prepare.js`; a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nnctl.nn.functions import Array

SIDE = 28  # pixels of the image
INK = 20  # pixels of the ink's longest side
FINE = 80  # of the same side where strokes are measured, thickened and thinned
# Stroke widths in pixels of the 28 x 28 image: what `stroke_width` finds in MNIST's test digits
# blown up is 1.4 to 4.8 in all but two of a thousand.
THINNEST, USUAL, THICKEST = 1.4, 2.4, 4.8
HALF = 0.5 + 1e-9  # a place is rounded; ties, as of a symmetric digit, are no matter of luck
# Thresholds that no difference of two whole grey levels meets exactly, for the same reason.
SPECK = 0.06  # of the mass of the largest piece of ink; what is smaller is dropped
BLANK = 23.5  # grey levels; what stands out less is no ink
FAINT = 0.143  # of full ink; what is fainter is none


class Box(NamedTuple):
    """Where ink lies in a picture, in pixels; `right` and `bottom` are just outside it."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Digit:
    """One digit on its way from the picture to the network."""

    box: Box | None  # None: the picture passed untouched
    crop: Array  # the ink inside the box, 0..1
    image: Array  # (28, 28), uint8
    stroke_width: float  # of the ink as it was drawn, in pixels of `image`
    adjusted: str | None  # "thickened" or "thinned"


@dataclass(frozen=True)
class Preparation:
    """A picture's stages: its ink, and the digits that it holds, from left to right."""

    inverted: bool  # was it dark ink on a bright page?
    ink: Array  # of the picture's size, 0 page to 1 ink
    digits: list[Digit]


class Piece(NamedTuple):
    """A connected piece of ink."""

    mass: float
    box: Box
    runs: list[tuple[int, int, int]]  # row, first column, end


def prepare(grey: Array, *, dark_ink: bool | None = None, several: bool = False) -> Preparation:
    """Return the stages of a picture `grey` (rows, columns), 0 black to 255 white.

    `dark_ink` says whether the ink is darker than the page; None: as it looks. With `several`,
    pieces of ink beside each other are digits of their own.

    A picture of 28 x 28 pixels with light ink passes untouched.
    """
    if dark_ink is not True and is_image(grey):
        return untouched(grey)
    page, noise = find_page(grey)
    inverted = is_darker(grey, page, noise) if dark_ink is None else dark_ink
    ink = find_ink(grey, page, noise, inverted)
    pieces = find_pieces(ink)
    digits = [
        make_digit(ink, group) for group in (groups(pieces) if several else [pieces]) if group
    ]
    kept = np.zeros_like(ink)
    for piece in pieces:
        for row, start, end in piece.runs:
            kept[row, start:end] = ink[row, start:end]
    return Preparation(inverted, kept, digits)


def is_image(grey: Array) -> bool:
    """Return whether `grey` is an image as networks see them already: 28 x 28, dark around."""
    if grey.shape != (SIDE, SIDE):
        return False
    return middle(grey[border(SIDE, SIDE)]) < 64


def untouched(grey: Array) -> Preparation:
    """Return the stages of a picture that needs none."""
    ink = grey / 255
    digit = Digit(None, ink, grey, stroke_width(ink), None)
    return Preparation(False, ink, [digit] if ink.any() else [])


def resized(grey: Array, shape: tuple[int, int], *, inverted: bool) -> Preparation:
    """Return the stages of a picture that is only brought to `shape`, each side on its own."""
    ink = (255 - grey if inverted else grey) / 255
    (rows, columns), (height, width) = grey.shape, shape
    image = as_bytes(coverage(height, rows) @ ink @ coverage(width, columns).T)
    return Preparation(inverted, ink, [Digit(None, ink, image, stroke_width(ink), None)])


# Page and ink.


def border(rows: int, columns: int) -> Array:
    """Return (rows, columns), True near the border of a picture, where there is mostly page."""
    m = max(1, min(rows, columns) // 16)
    near = np.ones((rows, columns), bool)
    near[m : rows - m, m : columns - m] = False
    return near


def find_page(grey: Array) -> tuple[Array, float]:
    """Return how bright the page is, as the coefficients of `surface`, and its noise.

    A surface of second degree, so that a shadow is no ink, is fitted by least squares to a grid
    of pixels: first to those near the border, then three times anew to all but what stands out.
    """
    rows, columns = grey.shape
    step = max(1, max(rows, columns) // 100)
    g = grey[::step, ::step].astype(float).ravel()
    terms = surface_terms(rows, columns, step)
    at_border = border(rows, columns)[::step, ::step].ravel()
    level = middle(g[at_border])
    page, noise = np.array([level, 0, 0, 0, 0, 0]), 0.0
    near = at_border & (abs(g - level) <= max(4 * middle(abs(g[at_border] - level)), 16.0))
    for _ in range(4):
        if near.sum() < 12:
            break
        x = terms[near]
        # A little ridge keeps the solution where the grid is too small to tell.
        page = np.linalg.solve(x.T @ x + np.diag([0, 1, 1, 1, 1, 1]) * 1e-6 * len(x), x.T @ g[near])
        noise = 1.5 * middle(abs(g[near] - x @ page))
        near = abs(g - terms @ page) <= max(4 * noise, 8.5)
    return page, noise


def surface_terms(rows: int, columns: int, step: int = 1) -> Array:
    """Return 1, x, y, x^2, x y, y^2 at every `step`-th pixel, (n, 6), with x and y in -1..1."""
    y, x = np.mgrid[0:rows:step, 0:columns:step]
    x, y = 2 * x.ravel() / columns - 1, 2 * y.ravel() / rows - 1
    return np.stack([np.ones(x.shape), x, y, x * x, x * y, y * y], axis=1)


def surface(page: Array, rows: int, columns: int) -> Array:
    """Return the brightness of the page at every pixel, (rows, columns)."""
    x = 2 * np.arange(columns) / columns - 1
    y = (2 * np.arange(rows) / rows - 1)[:, None]
    a, b, c, d, e, f = page
    value: Array = (a + b * x + d * x * x) + (c + e * x + f * y) * y
    return value


def middle(values: Array) -> float:
    """Return the median, the lower of two."""
    return quantile(values, 0.5)


def quantile(values: Array, q: float) -> float:
    """Return the smallest value that at least about a fraction `q` of `values` don't exceed."""
    place = int(q * (len(values) - 1))
    return float(np.partition(values, place)[place])


def is_darker(grey: Array, page: Array, noise: float) -> bool:
    """Return whether what stands out from the page is darker than it."""
    difference = surface(page, *grey.shape) - grey
    difference[abs(difference) < max(5 * noise, BLANK)] = 0
    return bool(difference.sum() >= 0)


def find_ink(grey: Array, page: Array, noise: float, inverted: bool) -> Array:
    """Return how much ink each pixel has, 0..1: its contrast with the page over the ink's own.

    What is faint, or can be noise, is none.
    """
    contrast = surface(page, *grey.shape)
    contrast -= grey
    if not inverted:
        np.negative(contrast, out=contrast)
    strong = contrast[contrast >= max(5 * noise, BLANK)]
    if not len(strong):
        return np.zeros_like(contrast)
    level = quantile(strong, 0.75)
    contrast[contrast < max(4 * noise, FAINT * level)] = 0
    contrast /= level
    return np.minimum(contrast, 1, out=contrast)


# Pieces of ink.


def find_pieces(ink: Array) -> list[Piece]:
    """Return the connected pieces of ink, without specks and dark corners, from left to right.

    A row's runs of ink are joined to those of the row above that they touch, also by a corner.
    """
    rows, columns = ink.shape
    padded = np.zeros((rows, columns + 2), np.int8)
    padded[:, 1:-1] = ink > 0
    turns = np.diff(padded.ravel())
    starts, ends = np.flatnonzero(turns == 1), np.flatnonzero(turns == -1)
    row_of = starts // (columns + 2)
    firsts, lasts = starts - row_of * (columns + 2), ends - row_of * (columns + 2)
    totals = np.concatenate([[0.0], np.cumsum(ink.ravel())])
    masses = totals[row_of * columns + lasts] - totals[row_of * columns + firsts]
    runs = list(zip(row_of.tolist(), firsts.tolist(), lasts.tolist(), strict=True))

    parent = list(range(len(runs)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    above = 0  # the first run of the row above that may touch this one
    for index, (row, first, last) in enumerate(runs):
        while above < index and (
            runs[above][0] < row - 1 or (runs[above][0] == row - 1 and runs[above][2] < first)
        ):
            above += 1
        other = above
        while runs[other][0] == row - 1 and runs[other][1] <= last:
            parent[root(other)] = root(index)
            other += 1

    members: dict[int, list[int]] = {}
    for index in range(len(runs)):
        members.setdefault(root(index), []).append(index)
    pieces = []
    for indices in members.values():
        mine = [runs[index] for index in indices]
        box = Box(
            min(first for _, first, _ in mine),
            mine[0][0],
            max(last for _, _, last in mine),
            mine[-1][0] + 1,
        )
        pieces.append(Piece(float(masses[indices].sum()), box, mine))
    pieces = [piece for piece in pieces if not holds_a_corner(piece, rows, columns)] or pieces
    largest = max((piece.mass for piece in pieces), default=0.0)
    kept = [piece for piece in pieces if piece.mass >= max(SPECK * largest, 4)]
    return sorted(kept, key=lambda piece: piece.box)


def holds_a_corner(piece: Piece, rows: int, columns: int) -> bool:
    """Return whether a piece reaches into a corner of the picture: then it is what lies around."""
    return any(
        row in (0, rows - 1) and (first == 0 or end == columns) for row, first, end in piece.runs
    )


def groups(pieces: list[Piece]) -> list[list[Piece]]:
    """Return the pieces digit by digit, from left to right.

    Pieces one above the other belong together: their columns overlap by half of the narrower.
    """
    found: list[list[Piece]] = []
    for piece in pieces:
        left, right = piece.box.left, piece.box.right
        if found:
            before = around(found[-1])
            overlap = min(right, before.right) - max(left, before.left)
            if 2 * overlap >= min(right - left, before.right - before.left):
                found[-1].append(piece)
                continue
        found.append([piece])
    return found


def around(pieces: list[Piece]) -> Box:
    """Return the box around pieces."""
    boxes = [piece.box for piece in pieces]
    return Box(
        min(box.left for box in boxes),
        min(box.top for box in boxes),
        max(box.right for box in boxes),
        max(box.bottom for box in boxes),
    )


# One digit.


def make_digit(ink: Array, pieces: list[Piece]) -> Digit:
    """Return the digit that `pieces` of `ink` are, at its place in 28 x 28 pixels."""
    box = around(pieces)
    crop = np.zeros((box.bottom - box.top, box.right - box.left))
    for row, start, end in (run for piece in pieces for run in piece.runs):
        crop[row - box.top, start - box.left : end - box.left] = ink[row, start:end]
    fine = fit(crop, FINE)
    width = stroke_width(fine) * INK / FINE
    changed = fine if THINNEST <= width <= THICKEST else trim(change_strokes(fine, width))
    if changed is fine or not changed.size:
        return Digit(box, crop, centred(fit(crop, INK)), width, None)
    adjusted = "thickened" if width < THINNEST else "thinned"
    return Digit(box, crop, centred(fit(changed, INK)), width, adjusted)


def fit(ink: Array, longest: int) -> Array:
    """Return `ink` scaled so that its longest side has `longest` pixels.

    Each new pixel is the mean over the area that it covers.
    """
    rows, columns = ink.shape
    scale = longest / max(rows, columns)
    height, width = (max(1, int(side * scale + 0.5)) for side in (rows, columns))
    scaled: Array = coverage(height, rows) @ ink @ coverage(width, columns).T
    return scaled


def coverage(new: int, old: int) -> Array:
    """Return (new, old): which share of each new pixel each of `old` pixels in a row makes up."""
    ends = np.arange(1, new + 1)[:, None] * (old / new)
    starts = ends - old / new
    pixels = np.arange(old)
    overlap = np.minimum(ends, pixels + 1) - np.maximum(starts, pixels)
    shares: Array = np.maximum(overlap, 0) * (new / old)
    return shares


def stroke_width(ink: Array) -> float:
    """Return the width of the strokes in pixels: twice the ink's area over its outline's length.

    A stroke of length l and width w has the area l w and two sides of length l. The outline's
    length is the total variation of the ink, sum |gradient|, which soft edges leave as it is.
    """
    padded = np.pad(ink, 1)
    down = padded[1:, :-1] - padded[:-1, :-1]
    right = padded[:-1, 1:] - padded[:-1, :-1]
    outline = np.sqrt(down * down + right * right).sum()
    return float(2 * ink.sum() / outline) if outline else 0.0


def change_strokes(fine: Array, width: float) -> Array:
    """Return `fine` ink with strokes so much thicker or thinner that they come out as usual.

    Its darkest pixel becomes full ink first, for strokes thinner than a pixel are pale.

    `width` is theirs, in pixels of the final image. A disc of radius r is moved along all ink and
    leaves its mark, or along all page. This changes the longest side by 2 r as well, so that r
    solves (width FINE / INK + 2 r) INK / (FINE + 2 r) = USUAL.
    """
    r = FINE * (USUAL - width) / (2 * (INK - USUAL))
    reach = int(abs(r))
    thicker = r > 0
    full = fine / fine.max()
    padded = np.pad(full if thicker else 1 - full, reach + 1, constant_values=0 if thicker else 1)
    result = padded.copy()
    rows, columns = padded.shape
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if dx * dx + dy * dy <= r * r:
                here = shifted(dy, rows), shifted(dx, columns)
                there = shifted(-dy, rows), shifted(-dx, columns)
                np.maximum(result[here], padded[there], out=result[here])
    return result if thicker else 1 - result


def shifted(by: int, length: int) -> slice:
    """Return the places along an axis that others reach when moved `by` places."""
    return slice(max(by, 0), length + min(by, 0))


def trim(ink: Array) -> Array:
    """Return `ink` without the empty rows and columns around it."""
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if not len(rows):
        return ink[:0, :0]
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def centred(small: Array) -> Array:
    """Return (28, 28), uint8: `small` ink with its centre of mass at row and column 14.

    It is moved by whole pixels; row and column are counted from 0.
    """
    rows, columns = small.shape
    mass = small.sum()
    top = SIDE // 2 - int(small.sum(axis=1) @ np.arange(rows) / mass + HALF)
    left = SIDE // 2 - int(small.sum(axis=0) @ np.arange(columns) / mass + HALF)
    image = np.zeros((SIDE + 2 * INK, SIDE + 2 * INK))
    image[INK + top : INK + top + rows, INK + left : INK + left + columns] = small
    image = image[INK:-INK, INK:-INK]
    return as_bytes(image)


def as_bytes(ink: Array) -> Array:
    """Return ink of 0..1 as 0..255, uint8."""
    return np.floor(ink * 255 + 0.5).astype(np.uint8)
