"""How well a network reads its test digits off pages: as scans, white on black, as photos.

python tests/benchmarks/pictures.py --run RUN --data data/mnist [--count N]

Each digit is blown up to 3 to 12 times its size, put anywhere on a page of its own, and goes
through what `nnctl predict` does: from the bytes of a PNG or JPEG to the prediction. So do strips
of 3 to 7 digits with `--several`. Prints the accuracies beside the plain one, how far the centre
of mass lies from where MNIST has it, and the peak memory.
"""

from __future__ import annotations

import argparse
import io
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from nnctl.datasets import Samples, Source
from nnctl.datasets import read as read_data
from nnctl.datasets.batches import Gatherer
from nnctl.datasets.catalogue import TEST_IMAGES, TEST_LABELS
from nnctl.nn.functions import Array
from nnctl.pictures.preparation import prepare
from nnctl.pictures.reading import read
from nnctl.runs.checkpoint import load
from nnctl.training.evaluation import chunks

Page = Callable[[Array, np.random.Generator], bytes]


def blown_up(image: Array, rng: np.random.Generator, low: float = 3, high: float = 12) -> Array:
    """Return the digit at 3 to 12 times its size, 0..1 ink."""
    factor = rng.uniform(low, high)
    rows, columns = (round(side * factor) for side in image.shape)
    large = Image.fromarray(image).resize((columns, rows), Image.Resampling.BICUBIC)
    return np.asarray(large) / 255


def placed(image: Array, rng: np.random.Generator) -> Array:
    """Return the ink of a page with the digit anywhere on it, 0..1."""
    digit = blown_up(image, rng)
    rows, columns = (len(digit) + rng.integers(0, 300, 2)).tolist()
    page = np.zeros((rows, columns))
    top, left = rng.integers(0, rows - len(digit) + 1), rng.integers(0, columns - len(digit) + 1)
    page[top : top + len(digit), left : left + len(digit)] = digit
    return page


def packed(page: Array, kind: str, **options: int) -> bytes:
    """Return a page of 0..255 as the bytes of a file."""
    file = io.BytesIO()
    Image.fromarray(np.clip(page, 0, 255).astype(np.uint8)).save(file, kind, **options)
    return file.getvalue()


def scan(image: Array, rng: np.random.Generator) -> bytes:
    """Return dark ink on white paper, a PNG."""
    return packed(255 - placed(image, rng) * rng.uniform(180, 255), "PNG", compress_level=1)


def chalk(image: Array, rng: np.random.Generator) -> bytes:
    """Return white on black, a PNG."""
    return packed(placed(image, rng) * 255, "PNG", compress_level=1)


def photo(image: Array, rng: np.random.Generator) -> bytes:
    """Return a photo in bad light: shaded, soft, noisy, a JPEG."""
    ink = placed(image, rng)
    rows, columns = ink.shape
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    light = rng.uniform(150, 220) + rng.uniform(10, 50) * (x * np.cos(angle) + y * np.sin(angle))
    page = light * (1 - ink * rng.uniform(0.5, 0.9))
    soft = Image.fromarray(np.minimum(page, 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(1)
    )
    noisy = np.asarray(soft) + rng.normal(0, 5, page.shape)
    return packed(noisy, "JPEG", quality=int(rng.integers(50, 90)))


PAGES: dict[str, Page] = {"scan": scan, "white on black": chalk, "photo": photo}


def strip(images: Array, rng: np.random.Generator) -> bytes:
    """Return digits beside each other, as one writes a number, a PNG."""
    height = 140
    ink = np.zeros((height, 20))
    for image in images:
        digit = blown_up(image[:, np.flatnonzero(image.any(axis=0))], rng, 3.5, 4.5)
        rows, columns = digit.shape
        cell = np.zeros((height, columns + int(rng.integers(4, 20))))
        top = int(rng.integers(0, height - rows + 1))
        cell[top : top + rows, :columns] = digit
        ink = np.hstack([ink, cell])
    return packed(255 - np.hstack([ink, np.zeros((height, 20))]) * 230, "PNG")


def main() -> None:
    """Measure, and print a line a kind of page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="a run's folder")
    parser.add_argument("--data", type=Path, required=True, help="the folder of MNIST's files")
    parser.add_argument("--count", type=int, default=10_000, help="test images of each kind")
    arguments = parser.parse_args()
    source = Source(data_dir=arguments.data.parent, offline=True)
    all_images = read_data("mnist", TEST_IMAGES, source)[0]
    all_labels = read_data("mnist", TEST_LABELS, source)[0]
    spread = np.linspace(0, 9_999, arguments.count).astype(int)
    images, labels = all_images[spread], all_labels[spread]
    network = load(arguments.run / "checkpoints" / "best.safetensors").network()

    def classes(prepared: Array) -> Array:
        pixels = prepared.reshape(len(prepared), -1)
        gather = Gatherer(Samples(pixels, labels[: len(pixels)]))
        found = [network.forward(gather.images(np.arange(len(pixels))[part])).argmax(axis=1)
                 for part in chunks(len(pixels))]  # fmt: skip
        return np.concatenate(found)

    plain = (classes(images) == labels).mean()
    print(f"{len(labels):,} digits of the test set; as they are: {plain:.2%} right")
    for name, page in PAGES.items():
        prepared, lost, seconds = np.zeros_like(images), 0, 0.0
        for index, image in enumerate(images):
            data = page(image, np.random.default_rng(index))
            start = time.perf_counter()
            digits = prepare(read(io.BytesIO(data)).grey).digits
            seconds += time.perf_counter() - start
            if digits:
                prepared[index] = digits[0].image
            else:
                lost += 1
        right = (classes(prepared) == labels).mean()
        mass = np.maximum(prepared.sum(axis=(1, 2)), 1)
        centres = [prepared.sum(axis=3 - axis) @ np.arange(28) / mass - 14 for axis in (1, 2)]
        off = max(abs(centre).max() for centre in centres)
        print(
            f"{name:<15} {right:.2%} right ({(right - plain) * 100:+.2f} points), "
            f"{lost} not found, centre of mass off by {off:.2f} at most, "
            f"{seconds / len(images) * 1000:.1f} ms each"
        )
    counted = read_right = digits_in = 0
    strips = max(len(images) // 10, 1)
    for index in range(strips):
        rng = np.random.default_rng(index)
        chosen = rng.integers(0, len(images), rng.integers(3, 8))
        data = strip(images[chosen], rng)
        found = prepare(read(io.BytesIO(data)).grey, several=True).digits
        digits_in += len(chosen)
        if len(found) == len(chosen):
            counted += 1
            read_right += int((classes(np.stack([d.image for d in found])) == labels[chosen]).sum())
    print(f"strips          {counted / strips:.1%} of {strips:,} counted right, ", end="")
    print(f"{read_right / digits_in:.2%} of all their digits read right")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1 << 20 if sys.platform == "darwin" else 1 << 10
    )
    print(f"peak memory     {peak:.0f} MB")


if __name__ == "__main__":
    main()
