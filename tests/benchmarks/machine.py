"""Measures what nnctl promises of itself: start-up, memory, large data, a busy machine.

    python tests/benchmarks/machine.py --data data/mnist

prints each figure beside its limit. All are ratios of medians taken in turn in one run, but for
memory. `--torch PYTHON` names a Python with PyTorch, to hold `fast` against importing it. Needs
Linux; takes some minutes and about 500 MB in the temporary folder.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from compare import ROWS, nnctl_config, tree_megabytes

NNCTL = [sys.executable, "-m", "nnctl"]
TIMES = 10  # MNIST's size, of the large data set
READ_CACHE = """
import gzip, hashlib, pathlib, sys, numpy
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.gz")):
    data = path.read_bytes()
    hashlib.sha256(data).hexdigest()
    gzip.decompress(data)
"""
EVALUATE = """
import os, sys, time
os.environ["OPENBLAS_NUM_THREADS"] = "1"
import statistics
from pathlib import Path
import numpy as np
from nnctl.datasets import Source, load
from nnctl.nn.layers import Affine, ReLU
from nnctl.nn.losses import SoftmaxWithLoss
from nnctl.nn.network import Network
from nnctl.training.evaluation import CHUNK, evaluate
train = load("mnist", Source(data_dir=Path(sys.argv[1]))).train
network = Network([Affine(50), ReLU(), Affine(10)], 784)
network.initialize(0)
weights = [network.layers[i].weight.copy() for i in (0, 2)]
x = train.images[:CHUNK].astype(np.float32)
hidden, logits = np.empty((CHUNK, 50), np.float32), np.empty((CHUNK, 10), np.float32)
def products():
    for _ in range(len(train.labels) // CHUNK):
        np.dot(x, weights[0], out=hidden)
        np.dot(hidden, weights[1], out=logits)
def whole():
    evaluate(network, SoftmaxWithLoss(), train, np.arange(len(train.labels)), threads=1)
def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
print(statistics.median(seconds(whole) / seconds(products) for _ in range(9)))
"""


def report(what: str, figure: float, limit: float | None = None, unit: str = "") -> None:
    """Print a figure, its limit and whether it holds."""
    verdict = ""
    if limit is not None:
        verdict = f"   limit {limit:g}: {'holds' if figure <= limit else 'NOT REACHED'}"
    print(f"{what:66} {figure:8.2f}{unit}{verdict}", flush=True)


def seconds(command: Sequence[str], first_line: bool = False) -> float:
    """Return how long a command takes, or until it has printed its first line."""
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        if first_line:
            process.stdout.readline()
            taken = time.perf_counter() - start
            process.kill()
            return taken
        process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return time.perf_counter() - start


def ratio(a: Callable[[], float], b: Callable[[], float], rounds: int = 7) -> float:
    """Return the median of a / b, taken in turn."""
    a(), b()
    return statistics.median(a() / b() for _ in range(rounds))


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/mnist"), help="the four files")
    parser.add_argument("--torch", help="a Python with PyTorch")
    options = parser.parse_args()
    data = options.data.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        measures = Measures(data, Path(temporary))
        measures.start_up()
        measures.products()
        measures.evaluation()
        measures.busy()
        measures.memory()
        measures.large()
        if options.torch:
            measures.fast(options.torch)


class Measures:
    """The measurements, each of which prints its figures."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.data, self.folder = data, folder
        self.train = [*NNCTL, "train", "-q", "--offline", "--data-dir", str(data.parent)]
        self.train += ["--runs-dir", str(folder / "runs")]

    def epoch(self, *options: str) -> float:
        """Return the seconds of an epoch: the median of a run's, without the first."""
        output = subprocess.run(
            [*self.train, "--json", *options], capture_output=True, text=True, check=True
        ).stdout
        events = [json.loads(line) for line in output.splitlines()]
        epochs = [event for event in events if event["event"] == "epoch_finished"]
        return float(statistics.median(event["seconds"] for event in epochs[1:]))

    def start_up(self) -> None:
        """Time help against click, and the way to the first step against NumPy and the cache."""
        click = [sys.executable, "-c", "import click"]
        helped = ratio(lambda: seconds([*NNCTL, "--help"]), lambda: seconds(click), 15)
        report("nnctl --help / import click", helped, 1.5)
        ready = [*self.train, "--json", "--config", "two-layer"]
        cache = [sys.executable, "-c", READ_CACHE, str(self.data)]
        report(
            "train, ready for its first step / import numpy and read the cache",
            ratio(lambda: seconds(ready, first_line=True), lambda: seconds(cache), 9),
            1.5,
        )

    def products(self) -> None:
        """Time steps on one thread against their bare matrix products."""
        for row in ROWS:
            config = self.folder / "row.yaml"
            config.write_text(nnctl_config({**row, "epochs": 1}))
            command = [*NNCTL, "bench", "--config", str(config), "--threads", "1", "--json"]
            command += ["--offline", "--data-dir", str(self.data.parent)]
            ratios = []
            for _ in range(3):
                output = subprocess.run(command, capture_output=True, check=True).stdout
                ratios.append(json.loads(output)["ratio"])
            name = f"{'-'.join(map(str, row['sizes']))}, {row['batch_size']}, {row['optimizer']}"
            limit = 2.0 if row["optimizer"] == "adam" else 1.5
            report(f"step on one thread / products, {name}", statistics.median(ratios), limit)

    def evaluation(self) -> None:
        """Time the evaluation of 60,000 images against its bare matrix products."""
        command = [sys.executable, "-c", EVALUATE, str(self.data.parent)]
        output = subprocess.run(command, capture_output=True, check=True).stdout
        report("evaluate 60,000 images on one thread / products", float(output), 1.5)

    def busy(self) -> None:
        """Train beside a busy process, and four at a time."""
        for config, batch in (("two-layer", "100"), ("fast", "100"), ("two-layer", "32")):
            options = ["--config", config, "--epochs", "5", "--batch-size", batch]

            def beside(options: list[str] = options) -> float:
                with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as hog:
                    try:
                        return self.epoch(*options, "--threads", "2")
                    finally:
                        hog.kill()

            figure = ratio(beside, lambda o=options: self.epoch(*o, "--threads", "1"), 5)  # type: ignore[misc]
            report(
                f"epoch beside a busy process / idle on one thread, {config} {batch}", figure, 1.3
            )

        one = [*self.train, "--config", "two-layer", "--epochs", "4"]

        def together() -> float:
            start = time.perf_counter()
            processes = [subprocess.Popen(one, stdout=subprocess.DEVNULL) for _ in range(4)]
            for process in processes:
                process.wait()
            return time.perf_counter() - start

        figure = ratio(together, lambda: sum(seconds(one) for _ in range(4)), 3)
        report("four trainings side by side / one after the other", figure, 1.0)

    def peak(self, *options: str) -> float:
        """Return the most memory a training uses, its workers included, in MB."""
        with subprocess.Popen([*self.train, *options], stdout=subprocess.DEVNULL) as process:
            most = 0.0
            while process.poll() is None:
                most = max(most, tree_megabytes(process.pid))
                time.sleep(0.02)
        return most

    def memory(self) -> None:
        """Watch the memory of short and of long runs."""
        for config, epochs in (("two-layer", "2"), ("two-layer", "30"), ("fast", "3")):
            peak = self.peak("--config", config, "--epochs", epochs, "--threads", "2")
            report(f"memory, {config}, {epochs} epochs, two processes", peak, 150, " MB")

    def large(self) -> None:
        """Train on ten times MNIST's training set, as raw files on the disk."""
        folders = {}
        for times in (1, TIMES):
            folder = self.folder / f"times-{times}"
            folder.mkdir()
            for packed in self.data.glob("*.gz"):
                raw = gzip.decompress(packed.read_bytes())
                copies = times if packed.name.startswith("train") else 1
                header = 16 if "images" in packed.name else 8
                count = int.from_bytes(raw[4:8], "big") * copies
                with open(folder / packed.stem, "wb") as file:
                    file.write(raw[:4] + count.to_bytes(4, "big") + raw[8:header])
                    for _ in range(copies):
                        file.write(raw[header:])
            folders[times] = ["--config", "two-layer", "--set", f"data.dataset={folder}"]
        figure = ratio(
            lambda: self.epoch(*folders[TIMES], "--epochs", "2") / TIMES,
            lambda: self.epoch(*folders[1], "--epochs", "5"),
            3,
        )
        report(f"time an image, {TIMES} times the data / once", figure, 1.1)
        once, more = (self.peak(*folders[times], "--epochs", "1") for times in (1, TIMES))
        pixels = (TIMES - 1) * 60_000 * 784 / 1e6
        report(f"memory, raw files mapped, {TIMES} times the data / once", more - once, None, " MB")
        report("  of which pixels, in the pages of the files", pixels, None, " MB")
        for times in folders:
            shutil.rmtree(self.folder / f"times-{times}")

    def fast(self, torch: str) -> None:
        """Train `fast` on five seeds, against importing PyTorch."""
        importing = statistics.median(seconds([torch, "-c", "import torch"]) for _ in range(5))
        for seed in range(5):
            run = self.folder / f"fast-{seed}"
            command = [*self.train, "--config", "fast", "--seed", str(seed), "--run-dir", str(run)]
            taken = seconds(command)
            summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
            what = f"fast, seed {seed}, {summary['test_accuracy']:.2%} / import torch"
            report(what, taken / importing, 1.5)


if __name__ == "__main__":
    main()
