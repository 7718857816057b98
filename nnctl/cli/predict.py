"""`nnctl predict`: a person's own pictures, read by a trained network."""

from __future__ import annotations

from pathlib import Path

import click

from nnctl.cli.completion import complete_run
from nnctl.cli.options import help_end, json_option, runs_dir_option
from nnctl.cli.requirements import Requirement, check, require_option
from nnctl.errors import CheckFailed, DataError, printable

DARK_INK = {"auto": None, "yes": True, "no": False}


@click.command(
    epilog=help_end("nnctl predict seven.jpg\nnnctl predict number.png --several --json", 3, 4, 5)
)
@click.argument("files", metavar="FILE...|-", nargs=-1, required=True)
@click.option(
    "--run",
    shell_complete=complete_run,
    metavar="RUN",
    default="latest",
    show_default=True,
    help="The trained network: a run's path, name, `latest`, or a checkpoint file.",
)
@click.option("--several", is_flag=True, help="Read several digits, from left to right.")
@click.option(
    "--invert",
    type=click.Choice([*DARK_INK]),
    default="auto",
    show_default=True,
    help="Whether the ink is darker than the page, and so to be inverted.",
)
@click.option(
    "--save",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False, readable=False),
    help="Write the ink, the box and the prepared image of each digit as PNG files.",
)
@runs_dir_option
@json_option
@require_option("probability>=0.9", lambda: ["prediction", "probability", "stroke_width"])
def command(
    files: tuple[str, ...],
    run: str,
    several: bool,
    invert: str,
    save: Path | None,
    runs_dir: Path,
    as_json: bool,
    requirements: tuple[Requirement, ...],
) -> None:
    """Read your own pictures of digits: photos, scans, drawings.

    Each is prepared as MNIST was, and the stages are drawn: the picture, its ink, the ink's box,
    and the 28 x 28 pixels that the network sees. A network that was trained on other images than
    MNIST's gets the picture resized, no more. PNG, JPEG, GIF, BMP, TIFF and WebP are known by
    their content; - is standard input.

    --json prints a line for each digit: file, box (left, top, right, bottom; null if the picture
    passed untouched), prediction, label_name, probability, probabilities, inverted,
    stroke_width (pixels of 28 x 28), adjusted (thickened, thinned or null), warnings.
    """
    from nnctl.cli.loading import find_weights
    from nnctl.config import build
    from nnctl.display.output import print_json
    from nnctl.nn.losses import LOSSES
    from nnctl.pictures.reading import check_installed, read_file
    from nnctl.pictures.recognition import Reader, recognise
    from nnctl.pictures.saving import save_stages

    check_installed()
    checkpoint = find_weights(run, runs_dir, for_data=False).checkpoint
    loss = build(LOSSES, checkpoint.settings.loss)
    reader = Reader(
        checkpoint.network(), loss, checkpoint.image_shape, mnist_like=checkpoint.mnist_like
    )
    unread, unmet = [], []
    for name in files:
        try:
            picture = read_file(name)
            stages, found = recognise(reader, picture, dark_ink=DARK_INK[invert], several=several)
        except DataError as error:
            unread.append(f"{printable(name)}: {error}")
            continue
        if save is not None:
            save_stages(save, name, stages)
        rows = [recognition.as_json(name, checkpoint.class_names) for recognition in found]
        if as_json:
            for row in rows:
                print_json(row)
        else:
            from nnctl.display.pictures import print_recognition

            print_recognition(
                name,
                picture,
                stages,
                found,
                checkpoint.class_names,
                probabilities=loss.has_probabilities,
            )
        for row in rows:
            try:
                check(requirements, row)
            except CheckFailed as error:
                unmet.append(f"{printable(name)}: {error}")
    if unread:
        raise DataError("\n".join(unread))
    if unmet:
        raise CheckFailed("\n".join(unmet))
