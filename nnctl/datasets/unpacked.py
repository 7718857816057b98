"""A known set's files once more, unpacked: a start maps them instead of unpacking 47 MB again.

Like Python's __pycache__, the folder beside the data sets' may be deleted at any time, and is done
without where nothing can be written. Damage is found: the .gz has been checked, and near its end
stands the CRC-32 of what is in it (RFC 1952, section 2.3.1). A forgery is not: unlike the .gz,
which has its pin, this is as trustworthy as whoever may write here.
"""

from __future__ import annotations

import os
import stat
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nnctl.datasets import idx
from nnctl.errors import DataError, SystemFailure
from nnctl.files import as_system_failure, write_atomically

if TYPE_CHECKING:
    from nnctl.datasets.idx import Array

FOLDER = "unpacked"


def read(packed: bytes, dimensions: tuple[str, ...], path: Path, kept: Path) -> Array:
    """Return the values of the gzipped file `packed`, found at `path`, and keep them at `kept`."""
    irregular = os.path.exists(kept) and not os.path.isfile(kept)
    if not irregular:  # opening a pipe could last for ever
        with suppress(DataError, OSError):
            values = idx.map_raw(kept, dimensions)
            crc = zlib.crc32(values.data, zlib.crc32(idx.header(values.shape)))
            if crc == int.from_bytes(packed[-8:-4], "little"):
                return values
    data = idx.unpack(packed, dimensions, path)
    if not irregular:
        with suppress(SystemFailure):
            _keep(kept, data)
    return idx.decode(data, dimensions, path)


def _keep(path: Path, data: bytearray) -> None:
    """Write the file at `path`, unless somebody has made the folder of all data sets read-only."""
    with as_system_failure("creating", path.parent):
        if path.parents[2].stat().st_mode & stat.S_IWUSR:  # root could write all the same
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, [memoryview(data)])
