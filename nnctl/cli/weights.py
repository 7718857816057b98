"""`nnctl weights`: the weights of a layer as pictures, and how weights and activations spread."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nnctl.cli.completion import complete_run
from nnctl.cli.options import (
    IndexList,
    OutputFile,
    config_option,
    help_end,
    json_option,
    runs_dir_option,
    set_options,
    source_options,
    unused_threads_option,
)
from nnctl.errors import UsageError

if TYPE_CHECKING:
    from nnctl.datasets import Source

# Units that a terminal shows: of the first layer as images, of a later one as a line each.
IMAGES, LINES = 6, 32


@click.command(
    epilog=help_end(
        "nnctl weights latest --units 0-9\n"
        "nnctl weights --config quickstart --set network.0.affine.initializer=zeros",
        *(4, 5),
    )
)
@click.argument("run", metavar="[RUN]", required=False, shell_complete=complete_run)
@config_option
@set_options
@click.option(
    "--layer",
    "position",
    metavar="N",
    type=click.IntRange(min=0),
    help="The layer, by its position in the network; default the first that has weights.",
)
@click.option(
    "--units",
    metavar="LIST",
    type=IndexList(),
    help="The layer's units to draw, as in 0,7,20-29; default all in a file, the first ones here.",
)
@click.option(
    "--output",
    metavar="FILE.png",
    type=OutputFile(),
    help="Write the picture as a PNG instead; - is standard output.",
)
@runs_dir_option
@json_option
@source_options
@unused_threads_option
def command(
    run: str | None,
    config: str | None,
    overrides: tuple[tuple[str, str], ...],
    position: int | None,
    units: list[range] | None,
    output: Path | None,
    runs_dir: Path,
    as_json: bool,
    source: Source,
) -> None:
    """Draw the weights of a layer, and how weights and activations are distributed.

    RUN is a run's path, its name under --runs-dir, or a checkpoint file; default `latest`.
    --config shows a network as it would start, before training.

    Each unit of the first layer is drawn as an image: its weight for each pixel. A later layer is
    a heat map: a row for each unit, a column for each input. Below are histograms of each layer's
    weights, and of its outputs for the mini-batch that training would begin with, as `nnctl trace`
    follows it: the way to see weights that start at zero or too large, and units that are dead or
    saturated.

    --json: name, run, dataset, batch_size; layers, each with name, shape (of the weight), weight
    and activation (mean, std, min, max, histogram: counts in 20 equal bins), units,
    zero_fraction, saturated_fraction, dead_units.
    """
    import math
    from dataclasses import asdict

    from nnctl.cli.loading import open_experiment
    from nnctl.inspection.weights import distributions, reach, weight_of, weighted_layers
    from nnctl.runs.folder import LATEST
    from nnctl.training.engine import first_batch, split_data

    source_of_config = click.get_current_context().get_parameter_source("config")
    if run is not None and source_of_config == click.core.ParameterSource.COMMANDLINE:
        raise UsageError("RUN and --config can't be combined: a run brings its own config")
    if output is not None and output != Path("-") and output.suffix.lower() != ".png":
        raise UsageError(f"--output {str(output)!r}: the name must end in .png")
    if as_json and output == Path("-"):
        raise UsageError("--json and --output - both want standard output")
    if run is None and config is None:
        run = LATEST
    opened = open_experiment(config, run, overrides, runs_dir, source, quiet=as_json)
    network, settings, data = opened.network(), opened.settings, opened.data
    having = weighted_layers(network)
    if not having:
        raise UsageError("the network has no layer of weights")
    if position is None:
        position = having[0]
    if position not in having:
        there = ", ".join(network.layer_name(index) for index in having)
        raise UsageError(f"--layer {position}: no layer of weights there; there are {there}")
    weight = weight_of(network, position)
    assert weight is not None
    count = weight.shape[1]
    if units is not None and any(part.stop > count for part in units):
        raise UsageError(f"--units: {network.layer_name(position)} has units 0 to {count - 1}")
    is_first = position == having[0]
    shown = [unit for part in units or [range(count)] for unit in part]
    if units is None and output is None:
        shown = shown[: IMAGES if is_first else LINES]
    chosen, largest = weight.T[shown], reach(weight)
    images = chosen.reshape(-1, *data.image_shape) if is_first else None

    if output is not None:
        from nnctl.display.output import write_result
        from nnctl.display.weights import enlarged, tiled, weights_png

        sheet = chosen if images is None else tiled(images, math.ceil(math.sqrt(len(images))))
        write_result(output, weights_png(enlarged(sheet), largest, opaque=True))
        if not as_json:
            return

    batch = first_batch(settings, split_data(settings, data).train)
    network.draw_dropout(settings.seed, 1)
    layers = distributions(network, opened.gatherer(augmented=False).images(batch))
    if as_json:
        from nnctl.display.output import print_json
        from nnctl.files import as_text

        print_json(
            {
                "name": settings.name,
                "run": opened.run and as_text(opened.run),
                "dataset": as_text(data.name),
                "batch_size": len(batch),
                "layers": [asdict(layer) for layer in layers],
            }
        )
        return

    from nnctl.display.output import console
    from nnctl.display.weights import DistributionsView, WeightGallery, WeightLegend, WeightMatrix

    out = console()
    name = f"{network.layer_name(position)}, {len(shown):,} of {count:,} units"
    if images is None:
        out.print(f"{opened.title}: {name}, a row each; columns are its {len(weight):,} inputs\n")
        out.print(WeightMatrix(chosen, shown, largest))
    else:
        out.print(f"{opened.title}: {name}\n")
        out.print(WeightGallery(images, [f"unit {unit}" for unit in shown], largest))
    out.print(WeightLegend(largest))
    out.print()
    out.print(DistributionsView(layers, len(batch)))
