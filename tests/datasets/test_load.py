"""Data sets as the rest of nnctl sees them."""

import gzip
import hashlib
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnctl.datasets import CATALOGUE, Source, describe, load, locate, verify
from nnctl.datasets.cache import check
from nnctl.datasets.catalogue import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from nnctl.datasets.info import info
from nnctl.errors import DataError, UsageError

Files = dict[str, bytes]
HERE = Source(offline=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a folder"


def fill(folder: Path, files: dict[str, bytes]) -> str:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return str(folder)


def test_sample_loads_without_a_network_and_is_balanced() -> None:
    data = load("mnist-sample", HERE)
    assert data.name == "mnist-sample"
    assert data.image_shape == (28, 28)
    assert data.class_names is None
    assert data.train.images.shape == (10_000, 784)
    assert data.train.images.dtype == data.train.labels.dtype == np.uint8
    assert np.bincount(data.train.labels).tolist() == [1000] * 10
    assert np.bincount(data.test.labels).tolist() == [200] * 10
    assert set(data.sha256) == set(CATALOGUE["mnist-sample"].pins)


def test_tiny_is_what_its_readme_makes_of_the_sample() -> None:
    readme = (locate("mnist-tiny", HERE) / "README.md").read_text(encoding="utf-8")
    recipe = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert recipe
    made: dict[str, Any] = {}
    exec(recipe[1], made)
    tiny = load("mnist-tiny", HERE)
    np.testing.assert_array_equal(tiny.train.images, made["train_images"].reshape(-1, 4))
    np.testing.assert_array_equal(tiny.test.images, made["test_images"].reshape(-1, 4))
    np.testing.assert_array_equal(tiny.train.labels, made["train_labels"])
    np.testing.assert_array_equal(tiny.test.labels, made["test_labels"])


def test_sample_is_spread_evenly_over_the_images_of_each_digit(mnist: Path) -> None:
    """The second half of MNIST's test set is easier than the first: both must be in it."""
    whole, sample = load(str(mnist.absolute()), HERE), load("mnist-sample", HERE)
    for part, count in (("train", 1000), ("test", 200)):
        images, labels = getattr(whole, part)
        each = [np.flatnonzero(labels == digit) for digit in range(10)]
        spread = [places[np.arange(count) * len(places) // count] for places in each]
        chosen = np.sort(np.concatenate(spread))  # the original order
        np.testing.assert_array_equal(getattr(sample, part).images, images[chosen])
        np.testing.assert_array_equal(getattr(sample, part).labels, labels[chosen])


def test_real_mnist_holds_its_pins_and_sizes(mnist: Path) -> None:
    known = CATALOGUE["mnist"]
    assert {check(mnist / name, pin)[0].state for name, pin in known.pins.items()} == {"ready"}
    data = load(str(mnist.absolute()), HERE)
    assert (len(data.train.labels), len(data.test.labels)) == (60_000, 10_000)
    assert data.image_shape == known.image_shape
    unpacked = {name.removesuffix(".gz"): pin.unpacked_sha256 for name, pin in known.pins.items()}
    assert data.sha256 == unpacked


def test_known_sets_are_described_by_the_catalogue_alone() -> None:
    fashion = describe("fashion-mnist")
    assert (fashion.inputs, fashion.classes) == (784, 10)
    assert (fashion.train_samples, fashion.test_samples) == (60_000, 10_000)
    assert fashion.class_names is not None
    assert (fashion.class_names[0], fashion.class_names[9]) == ("T-shirt/top", "Ankle boot")


def test_folder_loads_gzipped_or_not(folder: Path, raw_files: Files, packed_files: Files) -> None:
    packed = load(fill(folder, packed_files), HERE)
    raw = load(fill(folder, raw_files), HERE)
    assert raw.sha256 == {n: hashlib.sha256(d).hexdigest() for n, d in raw_files.items()}
    assert packed.sha256 == raw.sha256  # the same data, however they are packed
    for part in ("train", "test"):
        for one, other in zip(getattr(packed, part), getattr(raw, part), strict=True):
            np.testing.assert_array_equal(one, other)
            assert not one.flags.writeable
    sizes = describe(str(folder))
    assert (sizes.inputs, sizes.classes, sizes.train_samples, sizes.test_samples) == (
        784,
        None,
        200,
        30,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_raw_files_cost_no_memory(folder: Path, raw_files: Files) -> None:
    """Loading 160 MB of pixels that are not gzipped stays far below that."""
    count = 200_000
    name = fill(folder, raw_files)
    with open(folder / TRAIN_IMAGES, "wb") as stream:
        stream.write(struct.pack(">4I", 0x803, count, 28, 28))
        stream.truncate(16 + count * 784)
    (folder / TRAIN_LABELS).write_bytes(struct.pack(">2I", 0x801, count) + bytes(count))
    script = (
        "import sys; from nnctl.datasets import Source, load\n"
        "data = load(sys.argv[1], Source())\n"
        "print(len(data.train.images))\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    output = subprocess.check_output([sys.executable, "-c", script, name], text=True)
    images, kilobytes = map(int, output.split())
    assert images == count
    assert kilobytes < 80_000


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        (TRAIN_LABELS, None, "missing, with .gz and without; a data set's folder holds train-im"),
        (TRAIN_LABELS, struct.pack(">2I", 0x801, 3) + bytes(3), "200 images in train-images-idx3"),
        (TEST_LABELS, struct.pack(">2I", 0x801, 31) + bytes(31), "31 labels in t10k-labels-idx1-"),
        (
            TEST_IMAGES,
            struct.pack(">4I", 0x803, 30, 2, 3) + bytes(180),
            "images of 28 x 28 in train-images-idx3-ubyte, but of 2 x 3 in t10k-images",
        ),
        (TEST_IMAGES, b"\0", "cut off in the header"),
    ],
)
def test_folder_with_something_wrong_is_refused(
    folder: Path, raw_files: Files, name: str, data: bytes | None, problem: str
) -> None:
    path = fill(folder, raw_files)
    if data is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(data)
    for call in (load, info):  # which describe it first
        with pytest.raises(DataError) as caught:
            call(path, HERE)
        assert str(caught.value).startswith(str(folder))
        assert problem in str(caught.value)
    assert {status.state for status in verify(path, HERE)} > {"ready"}


def test_damage_behind_a_good_header_is_found_by_load_and_verify(
    folder: Path, packed_files: Files
) -> None:
    path = fill(folder, packed_files)
    cut = folder / f"{TEST_IMAGES}.gz"
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(DataError, match="the gzip data are cut off"):
        load(path, HERE)
    (damaged,) = [status for status in verify(path, HERE) if status.state != "ready"]
    assert (damaged.path, damaged.state) == (cut, "damaged")
    assert damaged.problem == "the gzip data are cut off"


def test_labels_out_of_range_are_named(folder: Path, raw_files: Files) -> None:
    path = fill(folder, raw_files)
    assert load(path, HERE, classes=10).class_names is None
    with pytest.raises(DataError) as caught:
        load(path, HERE, classes=9)
    assert str(caught.value) == (
        f"{folder / TRAIN_LABELS}: label 9 at position 9, where 9 classes are numbered from 0 to "
        "8\nif the labels are right, the network's last layer needs 10 units"
    )


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.*there is no such folder"):
        load(str(tmp_path / "nowhere"), HERE)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("mnits", "did you mean mnist?"), ("cifar", "known are mnist, fash"), ("", "known are")],
)
def test_unknown_name_is_a_usage_error(name: str, hint: str) -> None:
    for call in (load, info, locate, verify):
        with pytest.raises(UsageError) as caught:
            call(name, HERE)
        assert hint in str(caught.value)


def test_data_dir_is_the_given_one_then_data_here_then_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert locate("mnist", Source(Path("given"))) == Path("given/mnist")
    if sys.platform == "linux":
        assert locate("mnist", Source()) == tmp_path / "cache" / "nnctl" / "mnist"
    (tmp_path / "data").mkdir()
    assert locate("mnist", Source()) == Path("data/mnist")
    assert (locate("mnist-sample", Source(Path("given"))) / "README.md").is_file()


def test_info_tells_the_state_and_the_samples_of_each_class(
    folder: Path, packed_files: Files
) -> None:
    sample = info("mnist-sample", HERE)
    assert (sample.state, sample.rows, sample.columns, sample.classes) == ("ready", 28, 28, 10)
    assert sample.train_per_class == (1000,) * 10
    own = info(fill(folder, packed_files), HERE)
    assert (own.state, own.classes, own.test_per_class) == ("ready", 10, (3,) * 10)
    assert own.bytes == sum(map(len, packed_files.values()))
    missing = info("mnist", Source(folder))
    assert (missing.state, missing.train_samples, missing.bytes) == ("missing", 60_000, 0)
    assert missing.train_per_class is None
    (folder / "mnist").mkdir()
    (folder / "mnist" / f"{TEST_LABELS}.gz").write_bytes(gzip.compress(b""))
    assert info("mnist", Source(folder)).state == "damaged"


def test_warm_load_imports_nothing_for_the_network(mnist: Path) -> None:
    """A known set that is ready costs reading, hashing and unpacking."""
    script = (
        "import sys; from pathlib import Path; from nnctl.datasets import Source, load\n"
        "load('mnist-sample', Source(Path('.')))\n"
        "load(sys.argv[1], Source(Path('.')))\n"
        "heavy = {'requests', 'filelock', 'platformdirs', 'rich', 'click', 'ssl', 'difflib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    output = subprocess.check_output([sys.executable, "-c", script, str(mnist.absolute())])
    assert output == b"[]\n"
