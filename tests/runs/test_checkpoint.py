"""A checkpoint is read back bit for bit, or refused in words."""

import json
import os
import pickle
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save

from nnctl.config import Settings
from nnctl.datasets import CATALOGUE, DataSet
from nnctl.datasets.augmentation import Augmentation, Elastic
from nnctl.errors import RunError
from nnctl.files import write_atomically
from nnctl.runs import checkpoint
from nnctl.runs.checkpoint import DTYPES, Checkpoint, _safetensors, checkpoint_of, dump, load
from nnctl.training.events import TIMINGS, EpochFinished
from nnctl.training.trainer import Trainer

Content = dict[str, Any]
Arrays = dict[str, Any]


@pytest.fixture(scope="module")
def whole(tiny_data: DataSet, tiny_settings: Callable[..., Settings]) -> Checkpoint:
    """A checkpoint in the middle of the third epoch, with batch_norm's statistics."""
    network = [{"affine": 6}, "batch_norm", "relu", {"affine": 5}]
    made = tiny_settings(network=network, optimizer={"kind": "adam", "learning_rate": 1e-5})
    with closing(Trainer(made, tiny_data, 1)) as trainer:
        # Started, and in each epoch three steps and their end.
        for _ in islice(trainer.events(), 1 + 5 + 5 + 2):
            pass
        return checkpoint_of(trainer)


@pytest.fixture(scope="module")
def valid(whole: Checkpoint) -> bytes:
    return b"".join(dump(whole))


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(RunError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert all(line.isprintable() for line in message.split("\n")), repr(message)
    return message


def forged(valid: bytes, change: Callable[[Arrays, Content], object]) -> bytes:
    """Change arrays or metadata, and then make the SHA-256 right again."""
    size = struct.unpack("<Q", valid[:8])[0]
    content = json.loads(json.loads(valid[8 : 8 + size])["__metadata__"]["nnctl"])
    arrays = load_arrays(valid)
    del content["sha256"]
    change(arrays, content)
    content["sha256"] = checkpoint._digest(arrays, content)
    return save(arrays, metadata={"nnctl": json.dumps(content, sort_keys=True)})


def test_dump_of_arrays_in_another_memory_order_is_the_same_file(whole: Checkpoint) -> None:
    """safetensors 0.8 wrote such arrays as they lie in memory, under the shape of their view."""
    snapshot = whole.snapshot
    turned = {name: np.asfortranarray(array) for name, array in snapshot.parameters.items()}
    assert not all(array.flags.c_contiguous for array in turned.values())
    assert dump(replace(whole, snapshot=replace(snapshot, parameters=turned))) == dump(whole)


def test_round_trip_keeps_everything_but_clock_readings(
    whole: Checkpoint, valid: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "x"
    path.write_bytes(valid)
    back = load(path)
    assert b"".join(dump(back)) == valid
    for mine, other in (
        (whole.snapshot.parameters, back.snapshot.parameters),
        (whole.snapshot.optimizer, back.snapshot.optimizer),
    ):
        assert mine.keys() == other.keys()
        assert all(np.array_equal(mine[name], other[name]) for name in mine)
    progress, other_progress = whole.snapshot.progress, back.snapshot.progress
    assert (progress.epoch, progress.step, progress.position) == (2, 10, 50)
    assert vars(other_progress) | {"history": 0} == vars(progress) | {"history": 0}
    for row, other_row in zip(progress.history, other_progress.history, strict=True):
        timed, untimed = vars(row), vars(other_row)
        assert {k: v for k, v in timed.items() if k not in TIMINGS} == {
            k: v for k, v in untimed.items() if k not in TIMINGS
        }
        assert {untimed[name] for name in TIMINGS} == {0.0}
    assert back.settings.network == whole.settings.network


def test_history_reads_back_with_either_set_monitored(
    tiny_data: DataSet, tiny_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    with closing(Trainer(tiny_settings(data={"validation": 0}), tiny_data, 1)) as trainer:
        rows = [event for event in trainer.events() if isinstance(event, EpochFinished)]
        (tmp_path / "x").write_bytes(b"".join(dump(checkpoint_of(trainer))))
    back = load(tmp_path / "x").snapshot.progress.history
    assert [row.test_loss for row in back] == [row.test_loss for row in rows]
    assert [(row.epoch, row.step, row.validation_loss) for row in back] == [
        (1, 5, None),
        (2, 10, None),
        (3, 15, None),
    ]


def test_plain_readers_find_the_weights_and_the_file_knows_no_name_or_path(
    whole: Checkpoint, valid: bytes
) -> None:
    arrays = load_arrays(valid)
    assert arrays["0.affine.weight"].shape == (12, 6)
    assert arrays["1.batch_norm.running_mean"].shape == (6,)
    assert {name for name in arrays if "/" not in name} == set(whole.snapshot.parameters)
    assert b"tiny" not in valid


def test_checkpoint_of_plain_images_says_nothing_of_augmentation(
    whole: Checkpoint, valid: bytes, tmp_path: Path
) -> None:
    """So that its bytes are what they were before there was any."""
    assert whole.settings.data.augment is None
    assert b"augment" not in valid
    amounts = Augmentation(shift=1, elastic=Elastic(strength=2))
    data = replace(whole.settings.data, augment=amounts)
    path = tmp_path / "x"
    path.write_bytes(b"".join(dump(replace(whole, settings=replace(whole.settings, data=data)))))
    assert load(path).settings.data.augment == amounts


def damaged(valid: bytes) -> st.SearchStrategy[bytes]:
    place = st.integers(0, len(valid) - 1)
    flip = st.tuples(place, st.integers(0, 7)).map(
        lambda c: valid[: c[0]] + bytes([valid[c[0]] ^ 1 << c[1]]) + valid[c[0] + 1 :]
    )
    zero = st.tuples(place, st.integers(1, 64)).map(
        lambda c: valid[: c[0]] + bytes(min(c[1], len(valid) - c[0])) + valid[c[0] + c[1] :]
    )
    insert = st.tuples(place, st.binary(min_size=1, max_size=16)).map(
        lambda c: valid[: c[0]] + c[1] + valid[c[0] :]
    )
    append = st.binary(min_size=1, max_size=64).map(lambda more: valid + more)
    noise = st.binary(max_size=200)
    return st.one_of(flip, flip, place.map(lambda at: valid[:at]), zero, insert, append, noise)


@settings(max_examples=200)
@given(data=st.data())
def test_any_damage_is_noticed(
    valid: bytes, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    broken = data.draw(damaged(valid))
    if broken != valid:  # zeros may fall on zeros
        refused(tmp_path_factory.getbasetemp() / "broken", broken)


def test_each_bit_of_the_header_counts(valid: bytes, tmp_path: Path) -> None:
    """Not only where the JSON changes its meaning: 1e-05 and 1E-05 are one number."""
    spelled = valid.index(b"1e-05") + 1
    places = [*range(0, 8 + struct.unpack("<Q", valid[:8])[0], 37), spelled]
    for at in places:
        for bit in range(8):
            flipped = valid[:at] + bytes([valid[at] ^ 1 << bit]) + valid[at + 1 :]
            refused(tmp_path / "x", flipped)


def put(name: str, array: Any) -> Callable[[Arrays, Content], None]:
    return lambda arrays, content: arrays.__setitem__(name, array)


FORGERIES: dict[str, tuple[Callable[[Arrays, Content], object], str]] = {
    "missing array": (lambda a, c: a.pop("0.affine.bias"), "array 0.affine.bias is missing"),
    "missing state": (
        lambda a, c: [a.pop(name) for name in list(a) if name.startswith("optimizer/")],
        "array optimizer/",
    ),
    "extra array": (put("evil\x1b[31m", np.zeros(3, np.float32)), r"array evil\x1b[31m does not"),
    "extra array with a slash": (put("evil/x", np.zeros(3, np.float32)), "array evil/x does not"),
    "wrong shape": (
        put("0.affine.weight", np.zeros((12, 7), np.float32)),
        "0.affine.weight is float32 (12, 7), but by its config it is float32 (12, 6)",
    ),
    "wrong dimensions": (
        put("0.affine.weight", np.zeros(72, np.float32)),
        "0.affine.weight is float32 (72,), but by its config it is float32 (12, 6)",
    ),
    "wrong dtype": (
        put("0.affine.bias", np.zeros(6)),
        "0.affine.bias is float64 (6,), but by its config it is float32 (6,)",
    ),
    "strange dtype": (put("0.affine.bias", np.zeros(6, np.uint8)), "0.affine.bias is U8 (6,)"),
    "NaN weight": (
        put("0.affine.bias", np.full(6, np.nan, np.float32)),
        "0.affine.bias holds numbers that are not finite",
    ),
    "infinite statistics": (
        put("1.batch_norm.running_variance", np.full(6, np.inf, np.float32)),
        "1.batch_norm.running_variance holds numbers that are not finite",
    ),
    "losses of other samples": (put("losses/best", np.zeros(3, np.float32)), "losses/best is"),
    "longer history": (put("history/step", np.zeros(9, np.int64)), "history/step is int64 (9,)"),
    "huge network": (
        lambda a, c: c["config"]["network"][0]["affine"].update(units=4_000_000),
        "0.affine.weight is float32 (12, 6), but by its config it is float32 (12, 4000000)",
    ),
    "endless network": (
        lambda a, c: c["config"]["network"][0]["affine"].update(units=2**62),
        "parameters",
    ),
    "endless inputs": (lambda a, c: c.update(inputs=2**63), "parameters"),
    "no inputs": (lambda a, c: c.update(inputs=0), "make no sense"),
    "inputs in words": (lambda a, c: c.update(inputs="12"), "Expected `int`, got `str`"),
    "fork bomb": (lambda a, c: c.update(threads=10**6), "out of range"),
    "no threads": (lambda a, c: c.update(threads=0), "out of range"),
    "no network": (lambda a, c: c["config"].pop("network"), "needs network"),
    "unknown layer": (lambda a, c: c["config"].update(network=["\x1b[2J"]), r"\x1b[2J"),
    "unknown key": (lambda a, c: c["config"].update(evil=1), "unknown key 'evil'"),
    "other format": (lambda a, c: c.update(format=2), "its format is 2, not 1"),
    "no format": (lambda a, c: c.pop("format"), "not written by nnctl"),
    "no progress": (lambda a, c: c.pop("progress"), "progress"),
    "progress before the start": (lambda a, c: c["progress"].update(step=-1), "out of range"),
    "too many epochs": (lambda a, c: c["progress"].update(epoch=4), "out of range"),
    "endless epochs": (
        lambda a, c: (
            c["progress"].update(epoch=2**62),
            c["config"]["training"].update(epochs=2**62),
        ),
        "out of range",
    ),
    "other shape": (lambda a, c: c.update(image_shape=[4, 4]), "out of range"),
    "negative shape": (lambda a, c: c.update(image_shape=[-4, -3]), "out of range"),
    "names that a terminal obeys": (
        lambda a, c: c.update(class_names=["a", "b", "c", "d", "\x1b[31m"]),
        "out of range",
    ),
    "names of other classes": (lambda a, c: c.update(class_names=["cat", "dog"]), "out of range"),
    "second history": (lambda a, c: c["progress"].update(history=[{}]), "make no sense"),
    "second history, well made": (
        lambda a, c: c["progress"].update(
            history=[{field.name: 1 for field in fields(EpochFinished)}]
        ),
        "out of range",
    ),
    "losses in words": (lambda a, c: c["progress"].update(recent_losses=["x"]), "Expected"),
    "versions in a list": (lambda a, c: c.update(versions=["\x1b[2J"]), "Expected `object`"),
    "data in numbers": (lambda a, c: c.update(data_sha256={"a": 1}), "Expected `str`"),
    "config in a list": (lambda a, c: c.update(config=[]), "Expected `object`"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_checkpoint_is_refused_in_little_memory(
    valid: bytes, tmp_path: Path, name: str
) -> None:
    """Whoever forges one can make the SHA-256 right: the rest must hold by itself."""
    change, words = FORGERIES[name]
    broken = forged(valid, change)
    tracemalloc.start()
    try:
        message = refused(tmp_path / "x", broken)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
    assert words in message


def test_forging_nothing_changes_nothing(valid: bytes) -> None:
    assert forged(valid, lambda arrays, content: None) == valid


def header(content: str, size: int | None = None) -> bytes:
    return struct.pack("<Q", len(content) if size is None else size) + content.encode()


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a pickle was executed",)


TENSOR = '{"w":{"dtype":"F32","shape":[%s],"data_offsets":[%s]}}'

RAW = {
    "empty": b"",
    "zeros": bytes(100),
    "a pickle": pickle.dumps(Bomb()),
    "a zip file": b"PK\x03\x04" + bytes(100),
    "a page": b"<!DOCTYPE html><title>\x1b[31m</title>" * 10,
    "a header of 2**63 bytes": header("{}", 2**63),
    "a header of 2**64 - 1 bytes": header("{}", 2**64 - 1),
    "a header that is longer than the file": header("{}", 3),
    "no JSON": header("}{"),
    "a list": header("[]"),
    "nothing inside": header("{}"),
    "deep nesting": header("[" * 100_000),
    "negative offsets": header(TENSOR % ("1", "-4,0")) + bytes(4),
    "offsets behind the end": header(TENSOR % ("1", "0,400")) + bytes(4),
    "offsets the wrong way": header(TENSOR % ("1", "4,0")) + bytes(4),
    "a shape that overflows": header(TENSOR % ("4294967296,4294967296", "0,4")) + bytes(4),
    "a negative shape": header(TENSOR % ("-1", "0,4")) + bytes(4),
    "an unknown dtype": header(TENSOR.replace("F32", "\\u001b[31m") % ("1", "0,4")) + bytes(4),
    "metadata of another": header('{"__metadata__":{"nnctl":"{}"}}'),
    "metadata in words": header('{"__metadata__":{"nnctl":"\\u001b[31m"}}'),
    "metadata in numbers": header('{"__metadata__":{"nnctl":1}}'),
    "metadata in a list": header('{"__metadata__":{"nnctl":"[1]"}}'),
    "metadata nested deeply": header('{"__metadata__":{"nnctl":"%s"}}' % ("[" * 50_000)),
    "metadata not finite": header('{"__metadata__":{"nnctl":"{\\"format\\": NaN}"}}'),
}


@pytest.mark.parametrize("name", RAW)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    refused(tmp_path / "x", RAW[name])


def test_enormous_files_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for size in (2**24, 2**40):
        with path.open("wb") as file:
            file.write(struct.pack("<Q", size - 8))
            file.truncate(2**41)
        with pytest.raises(RunError, match="not a safetensors file"):
            load(path)


@pytest.fixture
def odd_paths(tmp_path: Path) -> list[Path]:
    pipe, folder, link, loop = (tmp_path / name for name in ("pipe", "folder", "link", "loop"))
    os.mkfifo(pipe)
    folder.mkdir()
    link.symlink_to("/dev/zero")
    loop.symlink_to(loop)
    return [pipe, folder, link, loop, tmp_path / "missing", folder / "x" / "y"]


def test_what_is_no_file_is_refused(odd_paths: list[Path]) -> None:
    for path in odd_paths:
        with pytest.raises(RunError, match=r"there is no such checkpoint|it is not a file"):
            load(path)


def test_what_is_known_of_the_images_is_kept(
    whole: Checkpoint, valid: bytes, tmp_path: Path
) -> None:
    named = replace(whole, class_names=("a", "b", "c", "d", "e"))
    for made in (whole, named):
        (tmp_path / "x").write_bytes(b"".join(dump(made)))
        back = load(tmp_path / "x")
        assert (back.image_shape, back.class_names) == ((4, 3), made.class_names)
        assert not back.mnist_like


def test_only_a_run_that_began_with_other_weights_names_them(
    whole: Checkpoint, valid: bytes, tmp_path: Path
) -> None:
    assert b"initial_sha256" not in valid
    (tmp_path / "x").write_bytes(b"".join(dump(replace(whole, initial_sha256="ab" * 32))))
    assert load(tmp_path / "x").initial_sha256 == "ab" * 32


@pytest.mark.parametrize(
    ("dataset", "inputs", "known"),
    [
        ("mnist", 784, ((28, 28), None, True)),
        ("fashion-mnist", 784, ((28, 28), CATALOGUE["fashion-mnist"].class_names, False)),
        ("mnist", 12, ((1, 12), None, False)),
        ("./folder", 9, ((3, 3), None, False)),
    ],
)
def test_old_checkpoint_gets_what_its_data_sets_name_says_of_the_images(
    valid: bytes, tmp_path: Path, dataset: str, inputs: int, known: tuple[Any, ...]
) -> None:
    def age(arrays: Arrays, content: Content) -> None:
        for key in ("image_shape", "class_names", "mnist_like"):
            del content[key]
        content["inputs"] = inputs
        content["config"]["data"]["dataset"] = dataset
        content["config"]["network"][-1]["affine"]["units"] = 10
        sizes = {"0.affine.weight": (inputs, 6), "3.affine.weight": (6, 10), "3.affine.bias": (10,)}
        for name, shape in sizes.items():
            arrays[name] = np.zeros(shape, np.float32)
        size = inputs * 6 + 6 + 2 * 6 + 6 * 10 + 10
        for name in list(arrays):
            if name.startswith("optimizer/"):
                arrays[name] = np.zeros(size, np.float32)

    path = tmp_path / "x"
    path.write_bytes(forged(valid, age))
    back = load(path)
    assert (back.image_shape, back.class_names, back.mnist_like) == known


@given(
    st.dictionaries(
        st.text("ab.0/é", min_size=1),
        st.tuples(st.sampled_from([*DTYPES.values()]), st.lists(st.integers(0, 3), max_size=3)),
    ),
    st.text(st.characters(exclude_categories=["Cs"])),
)
def test_file_is_to_the_byte_what_the_library_would_write(
    arrays: dict[str, tuple[type, list[int]]], text: str
) -> None:
    rng = np.random.default_rng(0)
    made: Arrays = {
        name: np.asarray(rng.normal(size=shape), dtype=d) for name, (d, shape) in arrays.items()
    }
    expected = save(made, metadata={"nnctl": text})
    assert b"".join(_safetensors(made, {"nnctl": text})) == expected


def test_writing_a_checkpoint_takes_no_second_copy_of_its_arrays(
    whole: Checkpoint, tmp_path: Path
) -> None:
    large = replace(whole.snapshot, best_losses=np.zeros(4_000_000, np.float32))
    tracemalloc.start()
    try:
        write_atomically(tmp_path / "x", dump(replace(whole, snapshot=large)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "x").stat().st_size > 16_000_000
    assert peak < 1_000_000
