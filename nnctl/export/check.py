"""Whether an exported network says of the test images what nnctl says of them."""

from __future__ import annotations

import base64
import gzip
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnctl.errors import SystemFailure, UsageError, printable
from nnctl.export.browser import Browser, find_chromium
from nnctl.export.model import Model
from nnctl.nn.functions import Array


@dataclass(frozen=True)
class Check:
    """How the exported network compares on the test images."""

    samples: int
    noise: float  # what sums in another order, or rounded weights, may change a score by
    different: int  # predictions that differ where the two scores are further apart than noise
    max_difference: float  # of a score

    @property
    def passed(self) -> bool:
        """True if no prediction differs and no score by more than a hundred times the noise."""
        return not self.different and self.max_difference <= 100 * self.noise


def compare(expected: Array, found: Array, noise: float) -> Check:
    """Hold the scores (n, classes) of an exported network against nnctl's own."""
    rows = np.arange(len(expected))
    mine, other = expected.argmax(axis=1), found.argmax(axis=1)
    gap = expected[rows, mine] - expected[rows, other]
    with np.errstate(invalid="ignore"):
        differences = abs(expected - found)
    return Check(
        samples=len(expected),
        noise=noise,
        different=int((gap > noise).sum()),
        max_difference=float(np.nan_to_num(differences, nan=np.inf).max(initial=0)),
    )


Run = Callable[[Path, Model, Array], Array]


def run_onnx(path: Path, model: Model, images: Array) -> Array:
    """Return the scores of an ONNX file, run by onnxruntime."""
    try:
        import onnxruntime
    except ImportError:
        raise UsageError(
            "--check runs the file with onnxruntime, which is not installed\n"
            "install it with: pip install onnxruntime"
        ) from None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    shaped = images.reshape(-1, *model.image_shape)
    found: Array = np.concatenate(
        [
            session.run([model.output], {"images": shaped[start : start + 250]})[0]
            for start in range(0, len(shaped), 250)
        ]
    )
    return found


def run_python(path: Path, model: Model, images: Array) -> Array:
    """Return the scores of a Python file, run by a fresh Python on an IDX file."""
    rows, columns = model.image_shape
    data = struct.pack(">4I", 0x803, len(images), rows, columns) + images.tobytes()
    idx = path.with_name("images.gz")
    idx.write_bytes(gzip.compress(data, 1))
    command = [sys.executable, "-I", str(path), "--probabilities", str(idx)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise SystemFailure(f"{path.name}: ended with {done.returncode}: {printable(done.stderr)}")
    classes = model.network.widths[-1]
    lines = [line.rsplit(",", classes)[1:] for line in done.stdout.splitlines()]
    return np.array(lines, np.float32)


# Called with images in base64; gives their scores, float32 in base64.
READ_IMAGES = """(text) => {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const size = MODEL.image_shape[0] * MODEL.image_shape[1], scores = [];
  for (let i = 0; i < bytes.length; i += size) {
    scores.push(...recognise(bytes.subarray(i, i + size)).scores);
  }
  const words = new Uint8Array(Float32Array.from(scores).buffer);
  return btoa(Array.from(words, (byte) => String.fromCharCode(byte)).join(""));
}"""


def run_html(path: Path, model: Model, images: Array) -> Array:
    """Return the scores of a page, run by Chromium."""
    program = find_chromium()
    if program is None:
        raise UsageError(
            "--check opens the page in Chromium or Chrome, and neither was found\n"
            "install one, as in: apt install chromium"
        )
    found = []
    with Browser(program) as browser:
        browser.open(path)
        for start in range(0, len(images), 500):
            text = base64.b64encode(images[start : start + 500].tobytes()).decode()
            answer = browser.evaluate(f"({READ_IMAGES})('{text}')")
            found.append(np.frombuffer(base64.b64decode(answer), "<f4"))
    return np.concatenate(found).reshape(len(images), -1)
