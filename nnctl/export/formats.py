"""The formats by name: how a file is made, and how it is run again to check it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from nnctl.datasets import Samples
from nnctl.export.check import Check, Run, compare, run_html, run_onnx, run_python
from nnctl.export.html import to_html
from nnctl.export.model import Model
from nnctl.export.onnx import to_onnx
from nnctl.export.python import to_python
from nnctl.training.mistakes import Mistake


class Format(NamedTuple):
    """One format."""

    ending: str
    make: Callable[[Model, Sequence[Mistake]], bytes]
    run: Run
    noise: float  # in a score, that is no mistake
    shows_mistakes: bool = False  # of the test set


FORMATS = {
    "onnx": Format(".onnx", lambda model, mistakes: to_onnx(model), run_onnx, 1e-5),
    "python": Format(".py", lambda model, mistakes: to_python(model), run_python, 1e-5),
    "html": Format(".html", to_html, run_html, 1e-4, shows_mistakes=True),
}


def check(data: bytes, kind: str, model: Model, samples: Samples) -> Check:
    """Run an exported file on the images of `samples`, and compare.

    Raises:
        UsageError: what runs it is not installed.

    """
    with TemporaryDirectory(prefix="nnctl-export-") as folder:
        path = Path(folder) / f"model{FORMATS[kind].ending}"
        path.write_bytes(data)
        found = FORMATS[kind].run(path, model, samples.images)
    return compare(model.scores(samples.images), found, FORMATS[kind].noise)
