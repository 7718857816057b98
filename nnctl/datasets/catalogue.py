"""The data sets that nnctl knows by name: their files, sizes, hashes, mirrors and classes.

Trust comes from the pins alone. A mirror, a cache or a file placed by hand only has to hold the
right bytes, in any packing.

How the pins were got. Sizes and SHA-256 of the .gz files of mnist and fashion-mnist are those of
the files that their mirrors serve. What is in them was hashed after unpacking: mnist's from those
very files; fashion-mnist's from Debian's package dataset-fashion-mnist, version
0.0~git20200523.55506a9-1, whose .gz files lack the name in the header and so are 23 or 24 bytes
smaller: with the name put back, and the time of packing (2017-08-31, 10:50:06 and 10:50:27 UTC),
all four are the pinned ones to the byte. mnist-sample's were computed from data/mnist-sample.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nnctl.datasets.idx import IMAGES, LABELS
from nnctl.errors import UsageError, did_you_mean, printable
from nnctl.files import has_separator

TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"
FILES = {TRAIN_IMAGES: IMAGES, TRAIN_LABELS: LABELS, TEST_IMAGES: IMAGES, TEST_LABELS: LABELS}
PAIRS = {"train": (TRAIN_IMAGES, TRAIN_LABELS), "test": (TEST_IMAGES, TEST_LABELS)}  # by part


@dataclass(frozen=True)
class Pin:
    """What a file must be, to the byte: as it is downloaded, or as what is in that."""

    size: int
    sha256: str
    unpacked_size: int
    unpacked_sha256: str


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


def _pins(*pins: Pin) -> dict[str, Pin]:
    return {f"{name}.gz": pin for name, pin in zip(FILES, pins, strict=True)}


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
            Pin(
                9_912_422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                47_040_016,
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            ),
            Pin(
                28_881,
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                60_008,
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            ),
            Pin(
                1_648_877,
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                7_840_016,
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            ),
            Pin(
                4_542,
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                10_008,
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
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
            Pin(
                26_421_880,
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                47_040_016,
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            ),
            Pin(
                29_515,
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                60_008,
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            ),
            Pin(
                4_422_102,
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                7_840_016,
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            ),
            Pin(
                5_148,
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                10_008,
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
        ),
        mirrors=("https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",),
        class_names=_FASHION,
    ),
    KnownSet(
        "mnist-sample",
        train_samples=10_000,
        test_samples=2_000,
        pins=_pins(
            Pin(
                1_619_346,
                "0a6afc41c4c9abbd89baae320fb2a4a9c4a7c033232fa6bc0cc57c275c5bec19",
                7_840_016,
                "96defee2ab685483b9a3e40d749565b36760c0072a8b8a3f6d989614bd22ff4d",
            ),
            Pin(
                4_798,
                "ef52660c6f0d4580761b1d07d46f5cd6b0406bb0069fad98730d304dee235f15",
                10_008,
                "306eb44c58c72aea6431270542616c67dd483edc08e92917cd180d90aad4772c",
            ),
            Pin(
                323_311,
                "b1c66be0e788649b7590151786cf1f112c9116685654eef1445dbdc63eeeb47e",
                1_568_016,
                "0a2a978ac97c9ffe5524643f23f15c688c7c4b82e1ce271f4060492e4a74cae4",
            ),
            Pin(
                1_000,
                "6a63718c819ad8ee39774469c496fddd8a874e0979910025709d11dac35aa864",
                2_008,
                "601a3cc86da79e5dcf5265d52b4dd14eb2e0ee0c69c9792c036ed8b98dcb05fa",
            ),
        ),
    ),
    KnownSet(
        "mnist-tiny",
        train_samples=2_000,
        test_samples=400,
        pins=_pins(
            Pin(
                7_618,
                "ab4310974ef0afa1143c17d3e73494d4d50f94cc644364b677e1e0eca51e0918",
                8_016,
                "1ac6697a9389b05e3a69f8e73bc478fd5b99eb470846498a4db65ac0811333b7",
            ),
            Pin(
                311,
                "01a804314bfcfebc02e5e546a7b4ebd1d630d79c4bf59cf32627dd3e2f0fcbbc",
                2_008,
                "36e93d3c877bdc7861410fe39d71297c97cde9dde4bc8bf44c0bcdcd2eba08da",
            ),
            Pin(
                1_602,
                "233dadaddcfa382bd880b98f3a72dfd2ca20127e096db86a47bbfceb1caf3623",
                1_616,
                "e62c79cd94cbfa2862fc2fa09443c0a343c7ad7cc22a91f4fda0172a6248daba",
            ),
            Pin(
                100,
                "3870feed25c87cffa6cfb553055a259672b509af9d1dfdff4d64ee87cbd263a0",
                408,
                "bda60959ccca9fdb3cf184aeb9693cccc09d8069a44c35bb34f1614f91e232b5",
            ),
        ),
        image_shape=(2, 2),
        classes=2,
    ),
)
CATALOGUE = {known.name: known for known in _SETS}


def find(name: str) -> KnownSet | Path:
    """Return the known set of that name, or the path if `name` is one: it has a separator."""
    if has_separator(name):
        return Path(name)
    if name in CATALOGUE:
        return CATALOGUE[name]
    hint = did_you_mean(name, CATALOGUE, f"known are {', '.join(CATALOGUE)}.")
    raise UsageError(
        f"unknown data set {printable(name)}; {hint} A folder is written with a separator, as in "
        f".{os.sep}{printable(name)}"
    )
