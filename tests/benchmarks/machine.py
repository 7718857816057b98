"""Measures what nnctl promises of itself: start-up, products, evaluation, load, memory, size.

    python tests/benchmarks/machine.py --data data/mnist

prints each figure beside its limit and whether it holds. Times are medians of ratios, both sides
taken in turn; only public commands are run. `fast` is held against importing PyTorch: that needs
`--torch PYTHON`, a Python that has it, such as the one in compare.py's `--venv`. Needs Linux, some
minutes, 500 MB in the temporary folder, and a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compare import ROWS, describe_machine, nnctl_config, peak_megabytes

NNCTL = [sys.executable, "-m", "nnctl"]
TIMES = 10  # MNIST's size, of the large data set
OWN = ("Pss_Anon", "Pss_Shmem")  # memory but for the pages of files, which may be let go
PIXELS = 60_000 * 784 / 1e6  # MB of MNIST's training set

UNPACK = """
import gzip, pathlib, sys, numpy
for path in pathlib.Path(sys.argv[1]).glob("*.gz"):
    gzip.decompress(path.read_bytes())
"""

# Only the matrix products of forward passes of so many images, 250 at a time, on one thread.
PRODUCTS = """
import sys, time
from nnctl.training.threads import confine_blas
confine_blas()
import numpy as np
count, *sizes = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
values = [rng.random((250, units), np.float32) for units in sizes]
weights = [rng.random(shape, np.float32) for shape in zip(sizes, sizes[1:])]
def products():
    for x, w, y in zip(values, weights, values[1:]):
        np.dot(x, w, out=y)
for _ in range(20):
    products()
start = time.perf_counter()
for _ in range(count // 250):
    products()
print(time.perf_counter() - start)
"""


def main() -> None:
    """Parse the arguments, and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data/mnist"), help="the four files")
    parser.add_argument("--torch", help="a Python that has PyTorch")
    parser.add_argument("--only", nargs="*", choices=MEASURES, help="only these")
    options = parser.parse_args()
    describe_machine()
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(options.data.resolve(), Path(temporary), options.torch)
        for name in options.only or MEASURES:
            MEASURES[name](bench)


def report(what: str, figure: float, limit: float | None, unit: str = "") -> None:
    """Print a figure, the most that it may be, and whether it holds."""
    promised = ""
    if limit is not None:
        promised = f"limit {limit:g}: {'holds' if figure <= limit else 'NOT REACHED'}"
    print(f"{what:68} {figure:7.2f} {unit:2}  {promised}", flush=True)


def ratio(a: Callable[[], float], b: Callable[[], float], rounds: int) -> float:
    """Return the median of a / b, measured in turn."""
    a(), b()
    return statistics.median(a() / b() for _ in range(rounds))


def seconds(command: Sequence[str], first_line: bool = False) -> float:
    """Return how long a command takes, or how long until it has printed its first line."""
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        if first_line:
            line = process.stdout.readline()
            taken = time.perf_counter() - start
            process.terminate()
            assert line, command
            return taken
        process.stdout.read()
    assert process.returncode == 0, command
    return time.perf_counter() - start


def output(command: Sequence[str]) -> list[Any]:
    """Return the lines of JSON that a command prints."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@contextmanager
def busy_process() -> Iterator[None]:
    """Keep one core busy meanwhile."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


class Bench:
    """Where the data and the runs lie, and how nnctl is called on them."""

    def __init__(self, data: Path, folder: Path, torch: str | None) -> None:
        """Use the files in `data`; write into `folder`."""
        self.data, self.folder, self.torch = data, folder, torch
        self.source = ["--offline", "--data-dir", str(data.parent)]
        self.runs = ["--runs-dir", str(folder / "runs")]

    def train(self, *options: str) -> list[str]:
        """Return a command that trains."""
        return [*NNCTL, "train", "--quiet", *self.source, *self.runs, *options]

    def config(self, row: dict[str, Any]) -> tuple[str, str]:
        """Write the config of a row of the comparison; return its path, and the row's name."""
        name = f"{'-'.join(map(str, row['sizes']))}, {row['optimizer']}, {row['batch_size']}"
        path = self.folder / "row.yaml"
        path.write_text(nnctl_config({"epochs": 1, **row}))
        return str(path), name

    def epoch(self, *options: str) -> float:
        """Return the seconds of an epoch: the median over a run, without the first."""
        events = output(self.train("--json", *options))
        epochs = [event for event in events if event["event"] == "epoch_finished"]
        return float(statistics.median(event["seconds"] for event in epochs[1:]))

    def peak(self, *options: str, fields: Sequence[str] = ("Pss",)) -> float:
        """Return the most memory that a training holds, its workers included, in MB."""
        with subprocess.Popen(self.train(*options), stdout=subprocess.DEVNULL) as process:
            peak = peak_megabytes(process, fields)
        assert process.returncode == 0, options
        return peak


def start_up(bench: Bench) -> None:
    """Time help against click, and the way to the first step against NumPy and the cache."""
    click = [sys.executable, "-c", "import click"]
    figure = ratio(lambda: seconds([*NNCTL, "--help"]), lambda: seconds(click), 25)
    report("nnctl --help / import click", figure, 1.5)
    ready = bench.train("--json", "--config", "two-layer")
    cache = [sys.executable, "-c", UNPACK, str(bench.data)]
    figure = ratio(lambda: seconds(ready, first_line=True), lambda: seconds(cache), 15)
    report("train, ready for its first step / import numpy, unpack the data", figure, 1.5)


def products(bench: Bench) -> None:
    """Hold steps on one thread against their bare matrix products, as `nnctl bench` does."""
    for row in ROWS:
        config, name = bench.config(row)
        command = [*NNCTL, "bench", "--config", config, "--threads", "1", "--json", *bench.source]
        figure = statistics.median(output(command)[0]["ratio"] for _ in range(3))
        limit = 2.0 if row["optimizer"] == "adam" else 1.5
        report(f"step on one thread / its products, {name}", figure, limit)


def evaluation(bench: Bench) -> None:
    """Hold evaluation against the bare products of the forward passes.

    What 60,000 images take longer than 10,000: the start of the process does not count.
    """
    for row in (ROWS[1], ROWS[4]):
        config, name = bench.config(row)
        (run,) = output(bench.train("--json", "--config", config))[-1:]
        evaluate = [*NNCTL, "evaluate", run["run_dir"], "--json", *bench.source]
        bare = [sys.executable, "-c", PRODUCTS, "50000", *map(str, row["sizes"])]
        for threads in (["--threads", "1"], []):
            command = [*evaluate, *threads, "--split"]
            figure = ratio(
                lambda c=command: seconds([*c, "train"]) - seconds([*c, "test"]),  # type: ignore[misc]
                lambda b=bare: output(b)[0],  # type: ignore[misc]
                7,
            )
            count = "one thread" if threads else "default"
            report(f"evaluate, {count} / products on one thread, {name}", figure, 1.5)


def busy(bench: Bench) -> None:
    """Train on two processes beside a busy one, and four times at once."""
    for row in (ROWS[1], ROWS[2], ROWS[3]):
        config, name = bench.config({**row, "epochs": 4})

        def idle(config: str = config) -> float:
            return bench.epoch("--config", config, "--threads", "1")

        def beside(config: str = config) -> float:
            with busy_process():
                return bench.epoch("--config", config, "--threads", "2")

        figure = ratio(beside, idle, 3)
        report(f"epoch beside a busy process / idle, one thread, {name}", figure, 1.3)

    config, name = bench.config({**ROWS[1], "epochs": 4})
    command = bench.train("--config", config)

    def together() -> float:
        start = time.perf_counter()
        processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(4)]
        assert not any(process.wait() for process in processes), command
        return time.perf_counter() - start

    figure = ratio(together, lambda: sum(seconds(command) for _ in range(4)), 5)
    report(f"four trainings side by side / one after the other, {name}", figure, 1.0)


def memory(bench: Bench) -> None:
    """Watch the memory of small and large networks, and of short and long runs."""
    for row in (ROWS[0], ROWS[4]):
        config, name = bench.config({**row, "epochs": 3})
        for threads in ("1", "2"):
            peak = bench.peak("--config", config, "--threads", threads)
            report(f"memory, --threads {threads}, {name}", peak, 150, "MB")
    config, name = bench.config(ROWS[0])
    figure = ratio(
        lambda: bench.peak("--config", config, "--epochs", "40"),
        lambda: bench.peak("--config", config, "--epochs", "2"),
        3,
    )
    report(f"memory of 40 epochs / of 2, {name}", figure, 1.05)


def size(bench: Bench) -> None:
    """Train on ten times MNIST's training images, as raw files on the disk."""
    config, name = bench.config(ROWS[1])
    options = {}
    for times in (1, TIMES):
        folder = bench.folder / f"times-{times}"
        write_repeated(bench.data, folder, times)
        options[times] = ["--config", config, "--set", f"data.dataset={folder}"]
    figure = ratio(
        lambda: bench.epoch(*options[TIMES], "--epochs", "2") / TIMES,
        lambda: bench.epoch(*options[1], "--epochs", "6"),
        3,
    )
    report(f"time per image, {TIMES} times the images / once, {name}", figure, 1.1)
    once, more = (bench.peak(*options[times], "--epochs", "1") for times in (1, TIMES))
    more_pixels = (TIMES - 1) * PIXELS
    report("memory's growth / that of the pixels", (more - once) / more_pixels, 1.05)
    own = bench.peak(*options[TIMES], "--epochs", "1", fields=OWN)
    report(f"memory without the files' pages, {TIMES} times the images", own, 150, "MB")


def write_repeated(data: Path, folder: Path, times: int) -> None:
    """Write MNIST's files unpacked, each training image and label `times` times."""
    folder.mkdir()
    for packed in data.glob("*.gz"):
        content = gzip.decompress(packed.read_bytes())
        header = 16 if "images" in packed.name else 8
        copies = times if packed.name.startswith("train") else 1
        count = int.from_bytes(content[4:8], "big") * copies
        with open(folder / packed.stem, "wb") as file:
            file.write(content[:4] + count.to_bytes(4, "big") + content[8:header])
            for _ in range(copies):
                file.write(content[header:])


def fast(bench: Bench) -> None:
    """Train the config `fast` from five seeds, each beside an import of PyTorch."""
    if bench.torch is None:
        print("fast / import torch: not measured; --torch PYTHON names a Python that has PyTorch")
        return
    importing = [bench.torch, "-c", "import torch"]
    seconds(importing)
    for seed in range(5):
        run = bench.folder / f"fast-{seed}"
        command = bench.train("--config", "fast", "--seed", str(seed), "--run-dir", str(run))
        took, torch = seconds(command), seconds(importing)
        accuracy = json.loads((run / "summary.json").read_text())["test_accuracy"]
        report(f"fast, seed {seed}: error on the test set", 100 * (1 - accuracy), 2.0, "%")
        what = f"fast, seed {seed}: whole process / import torch, {took:.2f} s / {torch:.2f} s"
        report(what, took / torch, 1.5)


MEASURES: dict[str, Callable[[Bench], None]] = {
    "start-up": start_up,
    "products": products,
    "evaluation": evaluation,
    "busy": busy,
    "memory": memory,
    "size": size,
    "fast": fast,
}


if __name__ == "__main__":
    main()
