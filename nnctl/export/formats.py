"""The formats by name: how a file is made, and how it is run again to check it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from nnctl.datasets import Samples
from nnctl.export.check import Check, Run, compare, run_onnx, run_python
from nnctl.export.model import Model
from nnctl.export.onnx import to_onnx
from nnctl.export.python import to_python


class Format(NamedTuple):
    """One format."""

    ending: str
    make: Callable[[Model], bytes]
    run: Run


FORMATS = {
    "onnx": Format(".onnx", to_onnx, run_onnx),
    "python": Format(".py", to_python, run_python),
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
    return compare(model.scores(samples.images), found)
