"""`nnctl gradcheck`: backpropagation against numerical gradients, with a cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from nnctl.cli.options import experiment_options, help_end, unused_threads_option
from nnctl.errors import CheckFailed, UsageError, counted, printable

if TYPE_CHECKING:
    from nnctl.runs.experiment import Experiment

SWEEP = [10 ** (-k / 2) for k in range(20, 1, -1)]  # steps, 1e-10 to 0.1


@click.command(epilog=help_end("nnctl gradcheck --config two-layer --all", 3, 4, 5))
@click.option("--all", "everything", is_flag=True, help="Check every parameter.")
@click.option(
    "--per-parameter",
    metavar="N",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Check at most so many entries of each parameter array.",
)
@click.option(
    "--samples",
    metavar="N",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Training images in the batch.",
)
@click.option(
    "--h",
    metavar="H",
    type=click.FloatRange(1e-8, 1e-2),
    default=1e-5,
    show_default=True,
    help="Step of the central differences.",
)
@click.option(
    "--tolerance",
    metavar="T",
    type=click.FloatRange(0, 1, min_open=True),
    default=1e-6,
    show_default=True,
    help="Largest relative error that passes.",
)
@click.option("--sweep", "with_sweep", is_flag=True, help="Also show the error against h.")
@experiment_options
@unused_threads_option
@click.pass_context
def command(
    context: click.Context,
    everything: bool,
    per_parameter: int,
    samples: int,
    h: float,
    tolerance: float,
    with_sweep: bool,
    experiment: Callable[[], Experiment],
    as_json: bool,
) -> None:
    """Compare backpropagation with numerical gradients, layer by layer and end to end.

    In float64, on training images as the first epoch sees them, with the weights that training
    starts from or those of --run. The gradients are those of the step that trains; dropout's mask
    is held fixed, batch_norm is in training. A wrong gradient is reported with its layer and the
    likely cause. --seed chooses images and entries, and without --run the weights.

    --sweep shows why h is what it is: above it truncation spoils the numerical gradient, below it
    rounding. With --json it adds `sweep`, a list of {"h", "error"}.
    """
    from dataclasses import asdict

    from nnctl.config import build
    from nnctl.gradcheck.batch import draw_batch
    from nnctl.gradcheck.check import check, sweep
    from nnctl.nn.losses import LOSSES
    from nnctl.training.shared_step import can_be_shared

    given = context.get_parameter_source("per_parameter")
    if everything and given is click.core.ParameterSource.COMMANDLINE:
        raise UsageError("--all and --per-parameter can't be combined")
    if tolerance != tolerance or h != h:
        raise UsageError("--tolerance and --h must be numbers, not nan")
    opened = experiment()
    settings = opened.settings
    try:
        batch = draw_batch(settings, opened.data, samples)
    except ValueError as error:
        raise UsageError(f"--samples {samples}: {error}") from error
    network, loss = opened.network("float64"), build(LOSSES, settings.loss)

    from nnctl.display.gradcheck import ReportView, check_progress, sweep_chart
    from nnctl.display.output import console, print_json

    with check_progress(network.size, quiet=as_json or not everything) as progress:
        report = check(
            network,
            loss,
            batch.x,
            batch.labels,
            per_parameter=None if everything else per_parameter,
            h=h,
            tolerance=tolerance,
            seed=settings.seed,
            progress=progress,
        )
    errors = []
    if with_sweep:
        found = sweep(network, loss, batch.x, batch.labels, SWEEP, seed=settings.seed)
        errors = list(zip(SWEEP, found, strict=True))
    if as_json:
        swept = [{"h": step, "error": error} for step, error in errors]
        print_json(asdict(report) | ({"sweep": swept} if with_sweep else {}))
    else:
        out = console()
        kind = "image" if settings.data.augment is None else "augmented image"
        title = (
            f"{opened.title}:\n{network.size:,} parameters, {counted(samples, kind)} of "
            f"{printable(opened.data.name)}, h = {h:g}"
        )
        out.print(ReportView(title, report, shared=can_be_shared(network)))
        if with_sweep:
            out.print()
            out.print(sweep_chart(errors))
    if report.verdict == "wrong":
        raise CheckFailed("the gradients are wrong; standard output says where and why")
    if report.verdict == "undecided":
        raise CheckFailed("the gradients can't be judged; standard output says why")
