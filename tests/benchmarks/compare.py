"""Times nnctl beside PyTorch, JAX and scikit-learn: same network, batch, optimizer and epochs.

    python tests/benchmarks/compare.py --data data/mnist

makes a virtual environment for the frameworks in a temporary folder (or `--venv`, kept), runs
every contender in a process of its own, in turn, `--rounds` times, prints medians with the ratio
to nnctl, and writes all figures as JSON to `--output`. Not part of the test run.
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


def nnctl_command(row: dict[str, Any], data: Path, runs: Path, threads: int | None) -> list[str]:
    """Return the command that trains `row` with nnctl; the config comes on standard input."""
    command = [sys.executable, "-m", "nnctl", "train", "--config", "-", "--json", "--offline"]
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


def run_once(name: str, row: dict[str, Any], data: Path, python: str, runs: Path) -> dict[str, Any]:
    """Run one contender once; return its epochs' seconds and the whole process's."""
    script = CONTENDERS[name]
    start = time.perf_counter()
    if script is None:
        threads = 1 if "1 thread" in name else None
        done = subprocess.run(
            nnctl_command(row, data, runs, threads),
            input=nnctl_config(row),
            capture_output=True,
            text=True,
            check=True,
        )
        whole = time.perf_counter() - start
        events = [json.loads(line) for line in done.stdout.splitlines()]
        epochs = [event["seconds"] for event in events if event["event"] == "epoch_finished"]
        return {"seconds": epochs, "accuracy": events[-1]["test_accuracy"], "whole": whole}
    file, variant = script
    arguments = [python, str(HERE / "contenders" / file), json.dumps({**row, "variant": variant})]
    done = subprocess.run(
        [*arguments, str(data)], capture_output=True, text=True, check=True, cwd=HERE
    )
    whole = time.perf_counter() - start
    return {**json.loads(done.stdout.splitlines()[-1]), "whole": whole}


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
        for number, base in enumerate(ROWS, 1):
            if options.rows and number not in options.rows:
                continue
            row = {**base, "epochs": options.epochs}
            runs: dict[str, list[dict[str, Any]]] = {}
            for _ in range(options.rounds):
                for name in options.only or CONTENDERS:
                    result = run_once(name, row, data, python, Path(temporary) / "runs")
                    runs.setdefault(name, []).append(result)
            results.append({"row": row, "runs": runs})
            show(row, runs)
    options.output.write_text(json.dumps(results, indent=1))


def show(row: dict[str, Any], runs: dict[str, list[dict[str, Any]]]) -> None:
    """Print one row's table: medians over rounds, the first epoch of each left out."""
    sizes = "-".join(map(str, row["sizes"]))
    print(f"\n{sizes}, batch {row['batch_size']}, {row['optimizer']}, {row['epochs']} epochs")
    print(f"  {'':16} {'s/epoch':>8} {'ratio':>6} {'process s':>10} {'ratio':>6} {'accuracy':>9}")
    medians = {}
    for name, results in runs.items():
        epoch = statistics.median(s for result in results for s in result["seconds"][1:])
        whole = statistics.median(result["whole"] for result in results)
        accuracy = statistics.median(result["accuracy"] for result in results)
        medians[name] = epoch, whole, accuracy
    first = next(iter(medians.values()))
    for name, (epoch, whole, accuracy) in medians.items():
        print(
            f"  {name:16} {epoch:8.3f} {epoch / first[0]:6.2f} {whole:10.2f} "
            f"{whole / first[1]:6.2f} {accuracy:9.4f}"
        )


if __name__ == "__main__":
    main()
