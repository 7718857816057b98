"""A folder of one's own pictures, one subfolder a class, is a data set for `evaluate`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnctl.datasets import Source, load
from nnctl.errors import DataError
from nnctl.pictures.folder import holds_pictures, load_pictures


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A folder with three pages for each digit."""
    test = load("mnist-sample", Source()).test
    for label in range(10):
        folder = tmp_path / "digits" / str(label)
        folder.mkdir(parents=True)
        for number, index in enumerate(np.flatnonzero(test.labels == label)[:3]):
            ink = np.kron(test.images[index].reshape(28, 28), np.ones((4, 4), np.uint8))
            Image.fromarray(255 - np.pad(ink, 30)).save(folder / f"{number}.png")
    (tmp_path / "digits" / "7" / ".hidden").write_bytes(b"")
    return tmp_path / "digits"


def loaded(folder: Path, names: tuple[str, ...] | None = None) -> list[int]:
    data = load_pictures(str(folder), (28, 28), 10, names, mnist_like=True)
    return list(data.test.labels)


def test_pictures_come_in_the_order_of_their_paths_with_their_folders_class(digits: Path) -> None:
    assert holds_pictures(digits)
    data = load_pictures(str(digits), (28, 28), 10, None, mnist_like=True)
    assert data.test.labels.tolist() == [label for label in range(10) for _ in range(3)]
    assert data.test.images.shape == (30, 784)
    assert data.mnist_like
    assert len(data.sha256) == 30
    assert not len(data.train.labels)


def test_folders_may_bear_the_names_of_classes(digits: Path) -> None:
    (digits / "7").rename(digits / "seven")
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    assert sorted(loaded(digits, names)) == [label for label in range(10) for _ in range(3)]
    with pytest.raises(DataError, match="no class of the network"):
        loaded(digits)


def test_every_picture_that_can_not_be_read_is_told(digits: Path) -> None:
    for number in range(4):
        (digits / str(number) / "bad.png").write_bytes(b"no")
        Image.new("L", (40, 40)).save(digits / str(number) / "blank.png")
    with pytest.raises(DataError) as caught:
        loaded(digits)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{digits / '0' / 'bad.png'}: no picture")
    assert lines[1].startswith(f"{digits / '0' / 'blank.png'}: nothing stands out")
    assert lines[5] == "and 3 more"


def test_idx_folder_and_nothing_are_not_pictures(tmp_path: Path, digits: Path) -> None:
    assert not holds_pictures(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert not holds_pictures(tmp_path / "empty")
    (digits / "t10k-images-idx3-ubyte").write_bytes(b"")
    assert not holds_pictures(digits)
