"""`nnctl evaluate`: what a trained network makes of data it may not have seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nnctl.cli.completion import complete_dataset, complete_run
from nnctl.cli.options import OutputFile, data_options, help_end, json_option, runs_dir_option
from nnctl.cli.requirements import Requirement, check, require_option
from nnctl.errors import UsageError

if TYPE_CHECKING:
    from nnctl.datasets import Source


@click.command(
    epilog=help_end("nnctl evaluate latest --split test --require 'accuracy>=0.97'", 3, 4, 5)
)
@click.argument(
    "run", metavar="[RUN|FILE.safetensors]", default="latest", shell_complete=complete_run
)
@click.option(
    "--checkpoint",
    "which",
    type=click.Choice(["best", "last"]),
    help="Which of the run's checkpoints; default best, without a validation set last.",
)
@click.option(
    "--split",
    "part",
    type=click.Choice(["test", "validation", "train"]),
    default="test",
    show_default=True,
    help="The samples to measure on.",
)
@click.option(
    "--dataset",
    metavar="NAME|PATH",
    shell_complete=complete_dataset,
    help="Measure on this data set, or on a folder of your own pictures.",
)
@click.option(
    "--batch-size",
    metavar="N",
    type=click.IntRange(min=1),
    default=250,
    show_default=True,
    help="Samples in a forward pass.",
)
@click.option(
    "--predictions",
    "csv",
    metavar="FILE.csv",
    type=OutputFile(),
    help="Write the prediction for each sample; - prints it in place of the result.",
)
@click.option(
    "--errors",
    metavar="N",
    type=click.IntRange(min=0),
    default=6,
    show_default=True,
    help="Draw the N most confident mistakes.",
)
@runs_dir_option
@json_option
@click.option("-q", "--quiet", is_flag=True, help="Print the accuracy and nothing else.")
@require_option("accuracy>=0.97", lambda: ["samples", "loss", "accuracy"])
@data_options
def command(
    run: str,
    which: str | None,
    part: str,
    dataset: str | None,
    batch_size: int,
    csv: Path | None,
    errors: int,
    runs_dir: Path,
    as_json: bool,
    quiet: bool,
    requirements: tuple[Requirement, ...],
    source: Source,
    threads: int | None,
) -> None:
    """Measure a trained network: loss, accuracy, and where it is wrong.

    RUN is a run's path, its name under --runs-dir, or `latest`. A checkpoint file needs no run
    around it.

    --dataset also takes a folder with one subfolder of pictures a class, as in ./digits/7/me.jpg:
    they are prepared as `nnctl predict` does.
    """
    import time
    from dataclasses import asdict

    from nnctl.cli.loading import find_weights, open_data, warn_of_other_data
    from nnctl.config import build
    from nnctl.display.output import print_json, write_result
    from nnctl.files import as_text, has_separator
    from nnctl.nn.losses import LOSSES
    from nnctl.pictures.folder import holds_pictures, load_pictures
    from nnctl.pictures.reading import check_installed
    from nnctl.runs.predictions import predictions_csv
    from nnctl.training.engine import split_samples
    from nnctl.training.evaluation import evaluate, report_on
    from nnctl.training.threads import requested

    to_stdout = csv == Path("-")
    if to_stdout and (as_json or quiet):
        raise UsageError("--predictions - and --json or --quiet both want standard output")
    weights = find_weights(run, runs_dir, which=which, dataset=dataset)
    checkpoint = weights.checkpoint
    settings = checkpoint.settings
    if part == "validation" and not settings.data.validation:
        raise UsageError("--split validation: this run held no validation images out")
    parts = ("test",) if part == "test" else ("train",)
    network, loss = checkpoint.network(), build(LOSSES, settings.loss)
    own = dataset if dataset is not None and has_separator(dataset) else None
    if part == "test" and own is not None and holds_pictures(Path(own)):
        check_installed()
        data = load_pictures(
            own,
            checkpoint.image_shape,
            network.widths[-1],
            checkpoint.class_names,
            mnist_like=checkpoint.mnist_like,
        )
    else:
        silent = as_json or quiet
        data = open_data(settings, source, inputs=checkpoint.inputs, quiet=silent, parts=parts)
    if dataset is None:
        warn_of_other_data(checkpoint, data)
    samples, indices = split_samples(settings, data, part)
    threads = threads or requested()
    started = time.perf_counter()
    result = evaluate(network, loss, samples, indices, batch_size, threads)
    seconds = time.perf_counter() - started
    report = report_on(
        result,
        network.widths[-1],
        run_dir=as_text(weights.run) if weights.run else None,
        checkpoint=as_text(weights.which),
        dataset=as_text(data.name),
        split=part,
    )
    if csv is not None:
        write_result(csv, predictions_csv(result, indices))
    if as_json:
        print_json(asdict(report))
    elif quiet:
        print_json(result.accuracy)
    elif not to_stdout:
        from nnctl.display.evaluation import print_evaluation
        from nnctl.training.mistakes import confident_mistakes

        print_evaluation(
            report,
            data.class_names,
            data.image_shape,
            confident_mistakes(network, loss, samples, indices, result, errors),
            probabilities=loss.has_probabilities,
            batch_size=batch_size,
            seconds=seconds,
        )
    check(requirements, asdict(report))
