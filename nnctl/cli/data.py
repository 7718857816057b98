"""`nnctl data`: data sets on this machine, and how they get there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from nnctl.cli.completion import complete_config, complete_dataset
from nnctl.cli.options import (
    F,
    IndexList,
    help_end,
    json_option,
    source_options,
    unused_threads_option,
)
from nnctl.errors import DataError, UsageError, printable

if TYPE_CHECKING:
    from nnctl.datasets import Source


def _dataset_argument(default: str | None) -> Callable[[F], F]:
    return click.argument(
        "name",
        metavar="[DATASET]",
        required=False,
        default=default,
        shell_complete=complete_dataset,
    )


@click.group(epilog=help_end("nnctl data fetch fashion-mnist\nnnctl data info", 4))
def command() -> None:
    """Download, verify, describe, locate and draw data sets.

    DATASET is mnist, fashion-mnist, mnist-sample or mnist-tiny (these two come with nnctl) or the
    path of a folder in MNIST's format: four IDX files, gzipped or not.
    """


@command.command(epilog=help_end("nnctl data fetch fashion-mnist", 4))
@_dataset_argument("mnist")
@source_options
@unused_threads_option
def fetch(name: str, source: Source) -> None:
    """Download what is missing of a data set; default mnist.

    Files are checked against their known size and SHA-256, gzipped or not. A damaged one is kept
    aside as NAME.bad once a good one has come.
    """
    from nnctl import datasets
    from nnctl.display.data import print_fetched
    from nnctl.display.downloads import download_progress

    with download_progress() as progress:
        fetched = datasets.fetch(name, source, progress)
    print_fetched(name, datasets.locate(name, source), len(fetched))


@command.command(epilog=help_end("nnctl data verify mnist", 4))
@_dataset_argument("mnist")
@json_option
@source_options
@unused_threads_option
def verify(name: str, as_json: bool, source: Source) -> None:
    """Check each file of a data set; default mnist. Changes and fetches nothing.

    Exits with 4 if a file is missing or damaged.
    """
    from nnctl import datasets
    from nnctl.display.data import print_statuses

    statuses = datasets.verify(name, source)
    print_statuses(name, statuses, as_json=as_json)
    if broken := [status for status in statuses if status.state != "ready"]:
        remedy = f"\n`nnctl data fetch {name}` mends that" if name in datasets.CATALOGUE else ""
        raise DataError(
            f"{printable(name)}: {len(broken)} of {len(statuses)} files are not ready{remedy}"
        )


@command.command(epilog=help_end("nnctl data info fashion-mnist", 4))
@_dataset_argument(None)
@json_option
@source_options
@unused_threads_option
def info(name: str | None, as_json: bool, source: Source) -> None:
    """Describe a data set; default: all that nnctl knows.

    State, folder and sizes; of one data set also the classes.
    """
    from dataclasses import asdict

    from nnctl.datasets import CATALOGUE
    from nnctl.datasets.info import info as describe
    from nnctl.display.data import print_info
    from nnctl.display.output import print_json

    for each in CATALOGUE if name is None else [name]:
        described = describe(each, source)
        if as_json:
            print_json(asdict(described))
        else:
            print_info(described, classes=name is not None)


@command.command(epilog=help_end('ls "$(nnctl data path mnist)"'))
@_dataset_argument("mnist")
@source_options
@unused_threads_option
def path(name: str, source: Source) -> None:
    """Print the folder of a data set; default mnist.

    Whether it is there or not: files of the right content put there are used.
    """
    from nnctl.datasets import locate
    from nnctl.display.output import print_path

    print_path(locate(name, source).absolute())


@command.command(
    epilog=help_end("nnctl data show mnist --index 0-2 --augment '{shift: 2, rotate: 15}'", 4)
)
@_dataset_argument("mnist")
@click.option(
    "--index",
    "indices",
    type=IndexList(),
    default="0-3",
    show_default=True,
    help="Which images, counted from 0, as in 0,7,20-29.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "test"]),
    default="train",
    show_default=True,
    help="Which of the data set's two files they are in.",
)
@click.option(
    "--augment",
    metavar="CONFIG|YAML",
    shell_complete=complete_config,
    help="Draw beside each image what training would see in its place: as a config says, or "
    "YAML such as '{shift: 2, rotate: 15}'.",
)
@click.option(
    "--epochs",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="With --augment: as the first N epochs would see it.",
)
@source_options
@unused_threads_option
def show(
    name: str,
    indices: list[range],
    split: str,
    augment: str | None,
    epochs: int,
    source: Source,
) -> None:
    """Draw images of a data set; default mnist.

    --augment takes the same keys as data.augment in a config (shift, rotate, scale, shear,
    elastic), or a config's file or name. What is drawn is, pixel for pixel, what that config's
    training learns from.
    """
    import numpy as np

    from nnctl import datasets
    from nnctl.config import load_augmentation
    from nnctl.datasets.augmentation import Augmenter
    from nnctl.display.data import print_images
    from nnctl.display.downloads import download_progress

    if augment is not None and split == "test":
        raise UsageError("--augment changes training images only: leave --split test out")
    wanted = None if augment is None else load_augmentation(augment, "--augment")
    with download_progress() as progress:
        data = datasets.load(name, source, progress=progress)
    images, labels = data.test if split == "test" else data.train
    if (largest := max(part[-1] for part in indices)) >= len(labels):
        raise UsageError(
            f"--index {largest}: the {len(labels):,} images are numbered from 0 to "
            f"{len(labels) - 1:,}"
        )
    chosen = np.concatenate([np.arange(part.start, part.stop) for part in indices])
    rows = images[chosen][:, None]  # (images, plain and as each epoch sees it, pixels)
    if wanted is not None:
        change = Augmenter(wanted[0], images, data.image_shape, seed=wanted[1])
        seen = [change(epoch, chosen) for epoch in range(1, epochs + 1)]
        rows = np.stack([rows[:, 0], *seen], axis=1)
    rows = rows.reshape(*rows.shape[:2], *data.image_shape)
    print_images(chosen, rows, labels[chosen], data.class_names)
