"""The data sets that nnctl knows by name: their files, sizes, hashes, mirrors and classes.

Trust comes from the pins alone. A mirror, a cache or a file placed by hand only has to hold the
right bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nnctl.datasets.idx import IMAGES, LABELS
from nnctl.errors import UsageError, printable
from nnctl.files import has_separator

TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"
FILES = {TRAIN_IMAGES: IMAGES, TRAIN_LABELS: LABELS, TEST_IMAGES: IMAGES, TEST_LABELS: LABELS}


@dataclass(frozen=True)
class Pin:
    """What a file must be, to the byte."""

    size: int
    sha256: str


@dataclass(frozen=True)
class KnownSet:
    """A data set whose files are pinned; without mirrors it comes with nnctl."""

    name: str
    train_samples: int
    test_samples: int
    pins: Mapping[str, Pin]  # by file name
    mirrors: tuple[str, ...] = ()
    image_shape: tuple[int, int] = (28, 28)
    classes: int = 10
    class_names: tuple[str, ...] | None = None  # None: the digits


def _pins(*rows: tuple[int, str]) -> dict[str, Pin]:
    return {f"{name}.gz": Pin(*row) for name, row in zip(FILES, rows, strict=True)}


_FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_SETS = (
    KnownSet(
        "mnist",
        train_samples=60_000,
        test_samples=10_000,
        pins=_pins(
            (9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            (28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            (1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            (4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "https://raw.githubusercontent.com/fgnt/mnist/master/",
        ),
    ),
    KnownSet(
        "fashion-mnist",
        train_samples=60_000,
        test_samples=10_000,
        pins=_pins(
            (26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            (29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            (4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            (5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        ),
        mirrors=("https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",),
        class_names=_FASHION,
    ),
    KnownSet(
        "mnist-sample",
        train_samples=10_000,
        test_samples=2_000,
        pins=_pins(
            (1619346, "0a6afc41c4c9abbd89baae320fb2a4a9c4a7c033232fa6bc0cc57c275c5bec19"),
            (4798, "ef52660c6f0d4580761b1d07d46f5cd6b0406bb0069fad98730d304dee235f15"),
            (323311, "b1c66be0e788649b7590151786cf1f112c9116685654eef1445dbdc63eeeb47e"),
            (1000, "6a63718c819ad8ee39774469c496fddd8a874e0979910025709d11dac35aa864"),
        ),
    ),
)
CATALOGUE = {known.name: known for known in _SETS}


def find(name: str) -> KnownSet | Path:
    """Return the known set of that name, or the path if `name` is one: it has a separator."""
    if has_separator(name):
        return Path(name)
    if name in CATALOGUE:
        return CATALOGUE[name]
    import difflib

    near = difflib.get_close_matches(name, CATALOGUE, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(CATALOGUE)}."
    raise UsageError(
        f"unknown data set {printable(name)}; {hint} A folder is written with a separator, as in "
        f".{os.sep}{printable(name)}"
    )
