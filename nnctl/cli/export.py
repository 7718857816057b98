"""`nnctl export`: a trained network for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nnctl.cli.completion import complete_run
from nnctl.cli.options import (
    OutputFile,
    help_end,
    json_option,
    runs_dir_option,
    source_options,
    unused_threads_option,
)
from nnctl.errors import CheckFailed, UsageError, printable

if TYPE_CHECKING:
    from nnctl.datasets import Source
    from nnctl.training.mistakes import Mistake

MISTAKES = 16  # that a page shows


@click.command(
    epilog=help_end(
        "nnctl export latest --format onnx --output digits.onnx --check\n"
        "nnctl export latest --format python --output digits.py",
        *(3, 4, 5),
    )
)
@click.argument(
    "run", metavar="[RUN|FILE.safetensors]", default="latest", shell_complete=complete_run
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["onnx", "python", "html"]),
    required=True,
    help="onnx: for other programs; python: a file that needs NumPy alone; html: a drawing board.",
)
@click.option(
    "--output",
    metavar="FILE",
    type=OutputFile(),
    required=True,
    help="Where to write it; - is standard output.",
)
@click.option(
    "--check",
    "checked",
    is_flag=True,
    help="Run the exported network on the test set, and compare with nnctl's own predictions.",
)
@runs_dir_option
@json_option
@source_options
@unused_threads_option
def command(
    run: str,
    kind: str,
    output: Path,
    checked: bool,
    runs_dir: Path,
    as_json: bool,
    source: Source,
) -> None:
    """Write a trained network as a file that needs no nnctl.

    RUN is a run's path, its name under --runs-dir, `latest`, or a checkpoint file. The same
    weights give the same bytes.

    The page of html needs no server and makes no request: draw with mouse, finger or keys, and see
    the image that the network gets, its hidden units and what it reads. It also shows mistakes on
    the test set, which is read for that.

    --check needs onnxruntime for onnx and Chromium for html, and exits with 3 if a prediction
    differs beyond rounding.

    --json: run_dir, checkpoint, format, output, bytes, sha256, parameters, check (samples,
    different, max_difference, passed; null without --check).
    """
    import hashlib
    from dataclasses import asdict

    import numpy as np

    from nnctl.cli.loading import find_weights, open_data
    from nnctl.config import build
    from nnctl.display.export import print_export
    from nnctl.display.output import print_json, write_result
    from nnctl.export.formats import FORMATS, check
    from nnctl.export.model import Model
    from nnctl.files import as_text
    from nnctl.nn.losses import LOSSES
    from nnctl.training.evaluation import evaluate
    from nnctl.training.mistakes import confident_mistakes

    if as_json and output == Path("-"):
        raise UsageError("--json and --output - both want standard output")
    for_data = checked or FORMATS[kind].shows_mistakes
    weights = find_weights(run, runs_dir, for_data=for_data)
    checkpoint = weights.checkpoint
    settings = checkpoint.settings
    model = Model(
        network=checkpoint.network(),
        loss=build(LOSSES, settings.loss),
        image_shape=checkpoint.image_shape,
        class_names=checkpoint.class_names,
        mnist_like=checkpoint.mnist_like,
    )
    mistakes: list[Mistake] = []
    if for_data:
        loaded = open_data(
            settings, source, inputs=checkpoint.inputs, quiet=as_json, parts=("test",)
        )
    if FORMATS[kind].shows_mistakes:
        everything = np.arange(len(loaded.test.labels))
        measured = evaluate(model.network, model.loss, loaded.test, everything)
        mistakes = confident_mistakes(
            model.network, model.loss, loaded.test, everything, measured, MISTAKES
        )
    data = FORMATS[kind].make(model, mistakes)
    result = check(data, kind, model, loaded.test) if checked else None
    write_result(output, data)
    report = {
        "run_dir": as_text(weights.run) if weights.run else None,
        "checkpoint": as_text(weights.which),
        "format": kind,
        "output": as_text(output),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "parameters": model.network.size,
        "check": result and {**asdict(result), "passed": result.passed},
    }
    if as_json:
        print_json(report)
    elif output != Path("-"):
        print_export(report, model.summary, model.output)
    if result is not None and not result.passed:
        raise CheckFailed(
            f"{printable(output)}: {result.different:,} of {result.samples:,} predictions differ, "
            f"{model.output} by up to {result.max_difference:.3g}"
        )
