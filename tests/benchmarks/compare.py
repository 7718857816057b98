"""Times nnctl beside PyTorch, JAX and scikit-learn: same network, batch, optimizer and epochs.

    python tests/benchmarks/compare.py --data data/mnist

makes a virtual environment for the frameworks in a temporary folder (or `--venv`, kept), runs
every contender in a process of its own, in turn, once to watch its memory and then `--rounds`
times, prints medians, and writes all figures as JSON to `--output`. A ratio is that of nnctl to
the contender in the same round, for the speed of a machine may drift; below 1 nnctl is faster.
The seconds of an epoch leave out the first one, in which frameworks compile; those of the process
hold everything, from the shell to the test accuracy. Memory is the most that a process and its
children held at a time, shared pages counted once. Needs Linux; not part of the test run.

pip sets the frameworks up and takes its own settings: where PIP_INDEX_URL names an index of
builds for the CPU, the download is smaller. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# Run from the repository nnctl would compile itself at every start, which nothing installed does.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
FRAMEWORKS = ("torch==2.13.0", "jax", "scikit-learn", "numpy>=2.4")

ROWS: list[dict[str, Any]] = [
    {"sizes": [784, 50, 10], "batch_size": 100, "optimizer": "sgd", "learning_rate": 0.1},
    {"sizes": [784, 100, 10], "batch_size": 100, "optimizer": "sgd", "learning_rate": 0.1},
    {"sizes": [784, 100, 10], "batch_size": 32, "optimizer": "adam", "learning_rate": 0.001},
    {"sizes": [784, 256, 128, 10], "batch_size": 100, "optimizer": "momentum",
     "learning_rate": 0.05},
    {"sizes": [784, 512, 10], "batch_size": 128, "optimizer": "adam", "learning_rate": 0.001},
]  # fmt: skip

CONTENDERS = {
    "nnctl": None,
    "nnctl, 1 thread": None,
    "jax scan": ("jax_any.py", "scan"),
    "jax step": ("jax_any.py", "step"),
    "torch eager": ("torch_any.py", "eager"),
    "torch fused": ("torch_any.py", "fused"),
    "torch compiled": ("torch_any.py", "compiled"),
    "scikit-learn": ("sklearn_mlp.py", ""),
}


def nnctl_command(data: Path, runs: Path, threads: int | None) -> list[str]:
    """Return the command that trains with nnctl; the config comes on standard input."""
    command = [sys.executable, "-m", "nnctl", "train", "--config", "-", "--json", "-q", "--offline"]
    command += ["--data-dir", str(data.parent), "--runs-dir", str(runs)]
    return command + (["--threads", str(threads)] if threads else [])


def nnctl_config(row: dict[str, Any]) -> str:
    """Return the config of `row`: JSON, which is YAML."""
    layers: list[Any] = []
    for units in row["sizes"][1:]:
        layers += [{"affine": units}, "relu"]
    kind, rate = row["optimizer"], row["learning_rate"]
    return json.dumps(
        {
            "name": "benchmark",
            "data": {"validation": 0},
            "network": layers[:-1],
            "optimizer": {"kind": kind, "learning_rate": rate},
            "training": {"epochs": row["epochs"], "batch_size": row["batch_size"]},
        }
    )


def run_once(
    name: str, row: dict[str, Any], data: Path, python: str, runs: Path, watch: bool = False
) -> dict[str, Any]:
    """Run one contender once; return its epochs' seconds, its accuracy and the whole process's.

    With `watch` the memory is looked at meanwhile, which costs time of its own.
    """
    script = CONTENDERS[name]
    if script is None:
        command = nnctl_command(data, runs, 1 if "1 thread" in name else None)
        text = nnctl_config(row)
    else:
        file, variant = script
        arguments = json.dumps({**row, "variant": variant})
        command, text = [python, str(HERE / "contenders" / file), arguments, str(data)], ""
    with tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(text)
            process.stdin.close()
            peak = peak_megabytes(process) if watch else 0.0
            output = process.stdout.read()
        whole = time.perf_counter() - start
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"{errors.read()}\n{name}: exit code {process.returncode}")
    lines = [json.loads(line) for line in output.splitlines()]
    if script is None:
        epochs = [event["seconds"] for event in lines if event["event"] == "epoch_finished"]
        result = {"seconds": epochs, "accuracy": lines[-1]["test_accuracy"]}
    else:
        result = lines[-1]
    return {**result, "whole": whole, "megabytes": peak}


def peak_megabytes(process: subprocess.Popen[Any], fields: Sequence[str] = ("Pss",)) -> float:
    """Watch a process until it ends; return the most memory it and its children held at a time.

    That is the sum of `fields` of /proc/PID/smaps_rollup. Pss divides each page by the number of
    processes that map it, so that the sum counts it once.
    """
    peak = 0.0
    while process.poll() is None:
        pids = _tree(process.pid)
        held = sum(_megabytes(pid, fields) for pid in pids)
        if _tree(process.pid) == pids:  # else a page may have been counted before and after a fork
            peak = max(peak, held)
        time.sleep(0.01)
    return peak


def _tree(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    children: list[str] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # the thread has just ended
            children += path.read_text().split()
    return [pid, *(below for child in children for below in _tree(int(child)))]


def _megabytes(pid: int, fields: Sequence[str]) -> float:
    """Return the sum of `fields` of a process, 0 if it has just ended."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        values = dict(line.split()[:2] for line in lines[1:])
        return sum(int(values[f"{field}:"]) for field in fields) * 1024 / 1e6
    return 0.0


def frameworks_python(folder: Path) -> str:
    """Return the Python of a virtual environment that has the frameworks; make what is missing."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "-q", *FRAMEWORKS], check=True)
    return str(python)


def busy_cores(seconds: float = 1.0) -> float:
    """Return how many cores were busy for the next moment, with us doing nothing (Linux)."""

    def not_idle() -> int:
        user, nice, system, _, _, *rest = Path("/proc/stat").read_text().split("\n")[0].split()[1:9]
        return sum(map(int, (user, nice, system, *rest)))

    before = not_idle()
    time.sleep(seconds)
    return (not_idle() - before) / os.sysconf("SC_CLK_TCK") / seconds


def describe_machine() -> dict[str, Any]:
    """Return and print what the figures depend on."""
    models = {
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    }
    busy = busy_cores()
    machine = {
        "processor": ", ".join(sorted(models)) or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "busy_cores": busy,
    }
    print("{processor}, {cores} cores, Python {python}".format(**machine), flush=True)
    if busy > 0.1:
        print(f"other processes keep {busy:.1f} cores busy: expect noise", flush=True)
    return machine


def main() -> None:
    """Parse the arguments, set up, run, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data/mnist"), help="the four files")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--venv", type=Path, help="keep the frameworks here")
    parser.add_argument("--output", type=Path, default=Path("benchmark.json"))
    parser.add_argument("--rows", type=int, nargs="*", help="only these rows, from 1")
    parser.add_argument("--only", nargs="*", choices=CONTENDERS, help="only these contenders")
    options = parser.parse_args()
    data = options.data.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        python = frameworks_python(options.venv or Path(temporary) / "venv")
        machine = describe_machine()
        results = []
        for place, base in enumerate(ROWS, 1):
            if options.rows and place not in options.rows:
                continue
            row = {**base, "epochs": options.epochs}
            runs: dict[str, list[dict[str, Any]]] = {}
            for round_number in range(options.rounds + 1):
                watch = round_number == 0  # which also warms the frameworks' caches on the disk
                for name in options.only or CONTENDERS:
                    result = run_once(name, row, data, python, Path(temporary) / "runs", watch)
                    runs.setdefault(name, []).append(result)
            results.append({"row": row, "runs": runs})
            show(row, runs)
    options.output.write_text(json.dumps({"machine": machine, "rows": results}, indent=1))


def show(row: dict[str, Any], runs: dict[str, list[dict[str, Any]]]) -> None:
    """Print one row's table: medians over the rounds; the first round monitored the memory."""
    sizes = "-".join(map(str, row["sizes"]))
    print(f"\n{sizes}, batch {row['batch_size']}, {row['optimizer']}, {row['epochs']} epochs")
    print(f"  {'':16} s/epoch  ratio  process s  ratio   MB  accuracy")
    epochs = {
        name: [statistics.median(result["seconds"][1:]) for result in results[1:]]
        for name, results in runs.items()
    }
    wholes = {name: [result["whole"] for result in results[1:]] for name, results in runs.items()}
    first = next(iter(runs))
    for name, results in runs.items():
        epoch, whole = statistics.median(epochs[name]), statistics.median(wholes[name])
        accuracy = statistics.median(result["accuracy"] for result in results)
        print(
            f"  {name:16} {epoch:7.3f} {_ratio(epochs, first, name):6.2f} "
            f"{whole:10.2f} {_ratio(wholes, first, name):6.2f} "
            f"{results[0]['megabytes']:4.0f}  {accuracy:8.4f}"
        )
    frameworks = [name for name in runs if CONTENDERS[name]]
    if frameworks and len(frameworks) < len(runs):
        for what, figures in ("epoch", epochs), ("process", wholes):
            fastest = min((statistics.median(figures[name]), name) for name in frameworks)[1]
            print(f"  {first}'s {what}: {_ratio(figures, first, fastest):.2f} of {fastest}'s")
    sys.stdout.flush()


def _ratio(figures: dict[str, list[float]], first: str, name: str) -> float:
    """Return the median of the ratios of `first` to `name`, round by round."""
    return statistics.median(a / b for a, b in zip(figures[first], figures[name], strict=True))


if __name__ == "__main__":
    main()
