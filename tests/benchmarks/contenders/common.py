"""What every contender shares: the data in memory, the timing, the line of JSON at the end."""

from __future__ import annotations

import gzip
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def load(folder: Path) -> tuple[Any, Any, Any, Any]:
    """Return images (n, 784) and labels, uint8 as in the files, of training and test set."""

    def read(name: str, skip: int) -> Any:
        return np.frombuffer(gzip.decompress((folder / name).read_bytes()), np.uint8, offset=skip)

    arrays = []
    for part in ("train", "t10k"):
        images = read(f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 784)
        arrays += [images, read(f"{part}-labels-idx1-ubyte.gz", 8)]
    return tuple(arrays)


def scaled(images: Any) -> Any:
    """Return images as float32 in 0..1."""
    return images.astype(np.float32) / np.float32(255)


def run(train: Callable[..., tuple[Callable[[], None], Callable[[], float]]]) -> None:
    """Run one contender: `train(row, data)` returns what does an epoch and what measures."""
    row, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    epoch, accuracy = train(row, load(folder))
    seconds = []
    for _ in range(row["epochs"]):
        start = time.perf_counter()
        epoch()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"seconds": seconds, "accuracy": accuracy()}))
