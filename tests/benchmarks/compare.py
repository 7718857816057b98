"""Times nnctl beside PyTorch, JAX and scikit-learn: same network, batch, optimizer and epochs.

    python tests/benchmarks/compare.py --data data/mnist

makes a virtual environment for the frameworks in a temporary folder (or `--venv`, kept), runs
every contender in a process of its own, in turn, `--rounds` times and once more to watch its
memory, prints medians, and writes all figures as JSON to `--output`. A ratio is that of nnctl to
the contender in the same round, for the speed of a machine may drift; below 1 nnctl is faster.
The seconds of an epoch leave out the first one, in which frameworks compile; those of the process
hold everything, from the shell to the test accuracy. Not part of the test run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
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
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(text)
        process.stdin.close()
        peak = 0.0
        while watch and process.poll() is None:
            peak = max(peak, tree_megabytes(process.pid))
            time.sleep(0.02)
        output = process.stdout.read()
    whole = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{name}: exit code {process.returncode}")
    lines = [json.loads(line) for line in output.splitlines()]
    if script is None:
        epochs = [event["seconds"] for event in lines if event["event"] == "epoch_finished"]
        result = {"seconds": epochs, "accuracy": lines[-1]["test_accuracy"]}
    else:
        result = lines[-1]
    return {**result, "whole": whole, "megabytes": peak}


def tree_megabytes(pid: int) -> float:
    """Return the memory of a process and its children, each shared page counted once (Linux)."""
    kilobytes = 0
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        kilobytes = next(int(line.split()[1]) for line in rollup.splitlines() if line[:4] == "Pss:")
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, StopIteration):  # it has just ended
        return kilobytes / 1024
    return kilobytes / 1024 + sum(tree_megabytes(int(child)) for child in children)


def main() -> None:
    """Parse the arguments, set up, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
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
        folder = options.venv or Path(temporary) / "venv"
        if not folder.exists():
            venv.create(folder, with_pip=True)
            python = str(folder / "bin" / "python")
            subprocess.run([python, "-m", "pip", "install", "-q", *FRAMEWORKS], check=True)
        python = str(folder / "bin" / "python")
        results = []
        for place, base in enumerate(ROWS, 1):
            if options.rows and place not in options.rows:
                continue
            row = {**base, "epochs": options.epochs}
            runs: dict[str, list[dict[str, Any]]] = {}
            for round_number in range(options.rounds + 1):
                watch = round_number == options.rounds
                for name in options.only or CONTENDERS:
                    result = run_once(name, row, data, python, Path(temporary) / "runs", watch)
                    runs.setdefault(name, []).append(result)
            results.append({"row": row, "runs": runs})
            show(row, runs)
    options.output.write_text(json.dumps(results, indent=1))


def show(row: dict[str, Any], runs: dict[str, list[dict[str, Any]]]) -> None:
    """Print one row's table: medians over the rounds; the last round watched the memory."""
    sizes = "-".join(map(str, row["sizes"]))
    print(f"\n{sizes}, batch {row['batch_size']}, {row['optimizer']}, {row['epochs']} epochs")
    print(
        f"  {'':16} {'s/epoch':>8} {'ratio':>6} {'process s':>10} {'ratio':>6} {'MB':>5} accuracy"
    )
    epochs = {
        name: [statistics.median(result["seconds"][1:]) for result in results[:-1]]
        for name, results in runs.items()
    }
    wholes = {name: [result["whole"] for result in results[:-1]] for name, results in runs.items()}
    first = next(iter(runs))
    for name, results in runs.items():
        accuracy = statistics.median(result["accuracy"] for result in results)
        epoch = statistics.median(epochs[name])
        print(
            f"  {name:16} {epoch:8.3f} {_ratio(epochs, first, name):6.2f} "
            f"{statistics.median(wholes[name]):10.2f} {_ratio(wholes, first, name):6.2f} "
            f"{results[-1]['megabytes']:5.0f}   {accuracy:.4f}",
            flush=True,
        )


def _ratio(figures: dict[str, list[float]], first: str, name: str) -> float:
    """Return the median of the ratios of `first` to `name`, round by round."""
    return statistics.median(a / b for a, b in zip(figures[first], figures[name], strict=True))


if __name__ == "__main__":
    main()
