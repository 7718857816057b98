"""Whatever the files of a data set hold, training starts or the error is one of data."""

from __future__ import annotations

import gzip
import shutil
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from tests.robustness.conftest import Lab

NAMES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]
SIZES = st.sampled_from([0, 1, 6, 36, 255, 400, 2**16, 2**31 - 1, 2**31, 2**32 - 1])


DAMAGE = st.fixed_dictionaries(
    {
        "flips": st.lists(st.tuples(st.integers(0, 20), st.integers(1, 255)), max_size=3),
        "size": st.none() | st.tuples(st.sampled_from([0, 4, 8]), SIZES),
        "cut": st.none() | st.floats(0, 1),
        "tail": st.binary(max_size=8),
    }
)


def damaged(valid: bytes, damage: dict[str, Any]) -> bytes:
    """Change bytes, mostly in the header, then cut and append."""
    data = bytearray(valid)
    for at, change in damage["flips"]:
        data[at % len(data)] ^= change
    if damage["size"]:
        struct.pack_into(">I", data, *damage["size"])
    end = len(data) if damage["cut"] is None else int(len(data) * damage["cut"])
    return bytes(data[:end]) + bytes(damage["tail"])


def test_any_data_are_trained_on_or_refused(lab: Lab) -> None:
    folder = lab.folder / "data"
    shutil.copytree(lab.data, folder)
    lab.data = folder
    config = lab.config()
    good = {name: (folder / name).read_bytes() for name in NAMES}
    plain = lab("train", "-c", config, "--check").check(0).memory
    codes = set()

    @settings(max_examples=4 * lab.cycles)
    @given(DAMAGE, st.none() | DAMAGE, st.sampled_from(NAMES))
    def check(inner: dict[str, Any], outer: dict[str, Any] | None, name: str) -> None:
        content = damaged(good[name], inner)
        (folder / name).unlink(missing_ok=True)
        (folder / f"{name}.gz").unlink(missing_ok=True)
        if outer is None:
            (folder / name).write_bytes(content)
        else:
            content = gzip.compress(content, mtime=0)
            (folder / f"{name}.gz").write_bytes(damaged(content, outer))
        outcome = lab("train", "-c", config, "--check").check(0, 2, 4)
        if outcome.status == 4:
            assert "-ubyte" in outcome.err
        assert outcome.memory < plain + 50_000_000
        assert outcome.seconds < 5
        codes.add(outcome.status)
        (folder / f"{name}.gz").unlink(missing_ok=True)
        (folder / name).write_bytes(good[name])

    check()
    assert 4 in codes


@pytest.mark.parametrize("zeros", [10**6, 10**9])
def test_gzip_bomb_takes_little_memory(lab: Lab, zeros: int) -> None:
    folder = lab.folder / "data"
    shutil.copytree(lab.data, folder)
    lab.data = folder
    config = lab.config()
    plain = lab("train", "-c", config, "--check").check(0).memory
    (folder / NAMES[0]).unlink()
    bomb = gzip.compress(struct.pack(">4I", 0x803, 400, 6, 6) + bytes(10**6), mtime=0)
    if zeros > 10**6:  # promises what deflate could keep
        bomb = gzip.compress(struct.pack(">4I", 0x803, zeros // 36, 6, 6), mtime=0) + bytes(10**6)
    (folder / f"{NAMES[0]}.gz").write_bytes(bomb)
    outcome = lab("train", "-c", config, "--check").check(4)
    assert NAMES[0] in outcome.err
    assert outcome.memory < plain + 50_000_000
