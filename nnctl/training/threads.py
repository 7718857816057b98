"""How many processes compute one batch: a fixed rule, never a measurement at run time."""

from __future__ import annotations

import os
from collections.abc import Mapping

BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")

MAX_THREADS = 256  # as `--threads` allows; nor may a run folder from a stranger ask for more

# Below so many multiplications a step, two processes cost more than they save.
WORTHWHILE = 5e5
# The same for a whole evaluation, which has to start them first.
WORTHWHILE_EVALUATION = 1e9


def confine_blas() -> None:
    """Give BLAS one thread in this process; to be called before NumPy is imported.

    Its own threads spin while they wait, which ruins a busy machine, and they would compete with
    the workers. A number that the user gave in these variables is kept for `requested`.
    """
    for name in (*BLAS_VARIABLES, "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        if name in os.environ:
            os.environ.setdefault(f"_NNCTL_{name}", os.environ[name])
        os.environ[name] = "1"


def requested(environment: Mapping[str, str] = os.environ) -> int | None:
    """Return the number of threads that the BLAS variables asked for, if they did."""
    for name in BLAS_VARIABLES:
        value = environment.get(f"_NNCTL_{name}", "")
        if value.isdecimal() and (count := int(value[:9])) > 0:
            return min(count, MAX_THREADS)
    return None


def usable_cores() -> int:
    """Return the number of cores this process may use, affinity respected."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_threads(parameters: int, batch_size: int, divisible: bool, cores: int) -> int:
    """Return the number of threads for a network of so many parameters.

    One that is not `divisible` (it has batch_norm) is computed in one piece.
    """
    if not divisible or parameters * batch_size < WORTHWHILE:
        return 1
    return min(cores, 2)


def choose_evaluation_threads(parameters: int, samples: int, cores: int) -> int:
    """Return the number of threads to measure a network of so many parameters on `samples`."""
    return min(cores, 2) if parameters * samples > WORTHWHILE_EVALUATION else 1
