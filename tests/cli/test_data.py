"""`nnctl data` and what is told of downloads, against servers that misbehave."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from rich.console import Console

from nnctl.cli.group import run
from nnctl.datasets import CATALOGUE, DataSet, Source, load
from nnctl.datasets.augmentation import Augmentation, Augmenter, Elastic
from nnctl.datasets.catalogue import TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from nnctl.display.digits import Gallery
from nnctl.display.downloads import download_progress
from nnctl.nn.functions import Array

if TYPE_CHECKING:
    from tests.conftest import Server

Files = dict[str, bytes]
Capture = pytest.CaptureFixture[str]
FIRST = f"{TRAIN_IMAGES}.gz"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def tiny(server: Server, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a known data set `tiny` that nothing is in yet."""
    monkeypatch.setitem(CATALOGUE, "tiny", server.tiny("good"))
    monkeypatch.setenv("NNCTL_DATA_DIR", str(data_dir))
    return data_dir / "tiny"


def fill(folder: Path, files: Files) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_fetch_fills_the_folder_and_tells_each_file(
    tiny: Path, packed_files: Files, capsys: Capture
) -> None:
    assert run(["data", "fetch", "tiny"]) == 0
    assert {path.name: path.read_bytes() for path in tiny.iterdir()} == packed_files
    output, errors = capsys.readouterr()
    assert output == f"tiny: ready in {tiny} (4 files fetched)\n"
    assert errors.splitlines()[0] == "downloading train-images-idx3-ubyte.gz (156.9 kB)"
    assert [line.split()[1] for line in errors.splitlines()] == list(packed_files)


def test_fetch_of_a_complete_set_asks_no_server(
    tiny: Path, server: Server, packed_files: Files, capsys: Capture
) -> None:
    fill(tiny, packed_files)
    assert run(["data", "fetch", "tiny"]) == 0
    assert capsys.readouterr() == (f"tiny: ready in {tiny} (nothing to do)\n", "")
    assert server.asked == []


def test_fetch_replaces_a_damaged_file_and_keeps_it_aside(
    tiny: Path, packed_files: Files, capsys: Capture
) -> None:
    fill(tiny, packed_files | {FIRST: b"damaged"})
    assert run(["data", "fetch", "tiny"]) == 0
    assert (tiny / FIRST).read_bytes() == packed_files[FIRST]
    assert (tiny / f"{FIRST}.bad").read_bytes() == b"damaged"
    output, errors = capsys.readouterr()
    assert output.endswith("(1 file fetched)\n")
    assert f"\nnnctl: warning: {tiny / FIRST}: 7 bytes, not " in errors


def test_mirrors_come_from_the_option_then_the_variable_then_the_catalogue(
    tiny: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_request() -> str:
        server.asked.clear()
        for path in tiny.glob("*"):
            path.unlink()
        assert run(["data", "fetch", "tiny", *options]) == 0
        return server.asked[0].split("/")[1]

    options: list[str] = []
    assert first_request() == "good"
    monkeypatch.setenv("NNCTL_MIRRORS", "")
    assert first_request() == "good"
    monkeypatch.setenv("NNCTL_MIRRORS", f"{server.mirror('404')} {server.mirror('chunked')}")
    assert first_request() == "404"
    assert {line.split("/")[1] for line in server.asked} == {"404", "chunked"}
    options = ["--mirror", server.mirror("500"), "--mirror", server.mirror("without-range")]
    assert first_request() == "500"
    assert {line.split("/")[1] for line in server.asked} == {"500", "without-range"}


def test_failed_mirror_is_a_warning_and_all_failed_an_error(
    tiny: Path, server: Server, capsys: Capture
) -> None:
    bad, worse = server.mirror("503"), server.mirror("web-page")
    assert run(["data", "fetch", "tiny", "--mirror", bad, "--mirror", worse]) == 4
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.splitlines()[:5] == [
        "downloading train-images-idx3-ubyte.gz (156.9 kB)",
        f"nnctl: warning: {bad}{FIRST}: HTTP 503 \\x1b[31mbusy; trying the next mirror",
        "nnctl: error: tiny could not be downloaded",
        f"{bad}{FIRST}: HTTP 503 \\x1b[31mbusy",
        f"{worse}{FIRST}: got 43 of 156,884 bytes (a web page, it seems)",
    ]
    assert "--mirror URL" in errors
    assert str(tiny) in errors
    assert list(tiny.iterdir()) == []


@pytest.mark.parametrize(("value", "offline"), [("1", True), ("yes", True), ("0", False)])
def test_offline_is_an_option_or_a_variable(
    tiny: Path,
    server: Server,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    value: str,
    offline: bool,
) -> None:
    assert run(["data", "fetch", "tiny", "--offline"]) == 4
    assert f"{tiny / FIRST}: missing" in capsys.readouterr().err
    monkeypatch.setenv("NNCTL_OFFLINE", value)
    assert run(["data", "fetch", "tiny"]) == (4 if offline else 0)
    assert (server.asked == []) is offline


def test_offline_variable_that_is_no_boolean_is_a_usage_error(
    tiny: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNCTL_OFFLINE", "perhaps")
    assert run(["data", "fetch", "tiny"]) == 2
    assert "NNCTL_OFFLINE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["fetch", "mnits"], "did you mean mnist?"),
        (["fetch", "./folder"], "a folder can't be fetched"),
        (["fetch", "mnist", "--mirror", "ftp://127.0.0.1/"], "ftp://127.0.0.1/: not an http://"),
        (["verify", "cifar"], "known are mnist, fashion-mnist, mnist-sample, mnist-tiny."),
        (["info", "\x1b[2J"], "unknown data set \\x1b[2J"),
        (["paht"], "Did you mean 'path'?"),
        (["fetch", "--miror", "x"], "Did you mean '--mirror'?"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    data_dir: Path, capsys: Capture, arguments: list[str], hint: str
) -> None:
    assert run(["data", *arguments, *(["--data-dir", str(data_dir)] * (len(arguments) > 1))]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("nnctl: error: ")
    assert hint in errors


def test_verify_tells_each_file_and_fails_unless_all_are_ready(
    tiny: Path, server: Server, packed_files: Files, capsys: Capture
) -> None:
    fill(tiny, packed_files)
    assert run(["data", "verify", "tiny"]) == 0
    output, errors = capsys.readouterr()
    assert output.splitlines() == [f"ready    {tiny / name}" for name in packed_files]
    assert errors == ""
    (tiny / FIRST).write_bytes(b"damaged")
    (tiny / f"{TEST_LABELS}.gz").unlink()
    assert run(["data", "verify", "tiny"]) == 4
    output, errors = capsys.readouterr()
    assert (
        output.splitlines()[0]
        == f"damaged  {tiny / FIRST}: 7 bytes, not 156,884 (156,816 unpacked)"
    )
    assert output.splitlines()[3] == f"missing  {tiny / TEST_LABELS}.gz"
    assert errors == (
        "nnctl: error: tiny: 2 of 4 files are not ready\n`nnctl data fetch tiny` mends that\n"
    )
    assert (tiny / FIRST).read_bytes() == b"damaged"
    assert server.asked == []


def test_verify_json_is_a_line_for_each_file(
    tiny: Path, packed_files: Files, capsys: Capture
) -> None:
    fill(tiny, {FIRST: packed_files[FIRST][::-1]})
    assert run(["data", "verify", "tiny", "--json"]) == 4
    first, second, _, _ = json_lines(capsys.readouterr().out)
    assert (first["dataset"], first["path"], first["state"]) == (
        "tiny",
        str(tiny / FIRST),
        "damaged",
    )
    assert first["problem"].startswith("SHA-256 ")
    assert (first["bytes"], len(first["sha256"])) == (len(packed_files[FIRST]), 64)
    assert (second["state"], second["problem"], second["bytes"]) == ("missing", "missing", None)


def test_info_of_everything_is_a_line_of_json_for_each_known_set(
    data_dir: Path, capsys: Capture
) -> None:
    assert run(["data", "info", "--json", "--data-dir", str(data_dir)]) == 0
    sets = {line["dataset"]: line for line in json_lines(capsys.readouterr().out)}
    assert list(sets) == ["mnist", "fashion-mnist", "mnist-sample", "mnist-tiny"]
    assert sets["mnist"]["state"] == "missing"
    assert sets["mnist"]["train_per_class"] is None
    assert sets["fashion-mnist"]["class_names"][7] == "Sneaker"
    assert sets["mnist-sample"]["test_per_class"] == [200] * 10


def test_info_tells_a_person_where_what_and_how_many(data_dir: Path, capsys: Capture) -> None:
    here = ["--data-dir", str(data_dir)]
    assert run(["data", "info", "mnist-sample", *here]) == 0
    output = capsys.readouterr().out
    assert "  state     ready\n" in output
    assert "  training  10,000 images\n" in output
    assert [line.split() for line in output.splitlines()[-11:]] == [
        ["class", "training", "test"],
        *([str(digit), "1,000", "200"] for digit in range(10)),
    ]
    assert run(["data", "info", "fashion-mnist", *here]) == 0
    output = capsys.readouterr().out
    assert "missing; `nnctl data fetch fashion-mnist` completes it" in output
    assert output.splitlines()[-1].split() == ["9", "Ankle", "boot"]


def test_info_of_a_folder_counts_classes_that_lack_test_samples(
    tmp_path: Path, raw_files: Files, capsys: Capture
) -> None:
    low = struct.pack(">2I", 0x801, 30) + bytes(30)
    folder = fill(tmp_path / "own", raw_files | {TEST_LABELS: low})
    assert run(["data", "info", str(folder), "--json"]) == 0
    (own,) = json_lines(capsys.readouterr().out)
    assert (own["classes"], own["train_per_class"]) == (10, [20] * 10)
    assert own["test_per_class"] == [30] + [0] * 9
    assert run(["data", "info", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["9", "20", "0"]


def test_folder_may_have_a_name_of_any_bytes(
    tmp_path: Path, packed_files: Files, capsys: Capture
) -> None:
    folder = fill(tmp_path / os.fsdecode(b"a\xff\n\x1b"), packed_files)
    told = f"{tmp_path}/a\\udcff\n\x1b"
    assert run(["data", "info", str(folder), "--json"]) == 0
    assert json_lines(capsys.readouterr().out)[0]["path"] == told
    (folder / FIRST).unlink()
    assert run(["data", "verify", str(folder), "--json"]) == 4
    output, errors = capsys.readouterr()
    assert {line["dataset"] for line in json_lines(output)} == {told}
    assert errors == f"nnctl: error: {tmp_path}/a\\udcff\\n\\x1b: 1 of 4 files are not ready\n"


def test_info_of_a_folder_with_a_wrong_header_names_file_and_field(
    tmp_path: Path, packed_files: Files, capsys: Capture
) -> None:
    name = f"{TRAIN_LABELS}.gz"
    wrong = gzip.compress(b"\0" * 8)
    folder = fill(tmp_path / "own", packed_files | {name: wrong})
    assert run(["data", "info", str(folder)]) == 4
    assert f"nnctl: error: {folder / name}: magic number" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="paths are bytes on POSIX only")
def test_path_prints_the_absolute_folder_byte_by_byte(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    odd = os.fsdecode(b"caf\xe9 x")
    assert run(["data", "path", "--data-dir", odd]) == 0
    assert capsysbinary.readouterr().out == os.fsencode(tmp_path) + b"/caf\xe9 x/mnist\n"
    assert run(["data", "path", f"./{odd}"]) == 0
    assert capsysbinary.readouterr().out == os.fsencode(tmp_path) + b"/caf\xe9 x\n"


def test_path_claims_no_exit_code_that_it_never_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "path", str(tmp_path / "missing")]) == 0
    assert run(["data", "path", "--help"]) == 0
    assert "data missing" not in capsys.readouterr().out


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def stderr_as_terminal(monkeypatch: pytest.MonkeyPatch, kind: str = "xterm") -> Terminal:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", kind)
    return stream


def test_progress_on_a_terminal_is_a_bar_with_the_warnings_above(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = stderr_as_terminal(monkeypatch)
    with download_progress() as progress:
        progress.transfer("a.gz", 0, 2_000_000)
        progress.warn("mirror [red]failed[/red]")
        progress.transfer("a.gz", 0, 2_000_000)
        progress.transfer("a.gz", 2_000_000, 2_000_000)
    text = terminal.getvalue()
    assert "nnctl: warning: mirror [red]failed[/red]" in text
    assert "downloading" not in text
    last = text.rsplit("a.gz", 1)[1]
    assert "2.0/2.0 MB" in last
    assert text.index("[/red]") < text.index("2.0/2.0 MB")


def test_progress_keeps_to_lines_where_nothing_can_be_redrawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = stderr_as_terminal(monkeypatch, "dumb")
    with download_progress() as progress:
        for received in (0, 1000, 2_000_000):
            progress.transfer("a.gz", received, 2_000_000)
    assert terminal.getvalue() == "downloading a.gz (2.0 MB)\n"


def test_quiet_progress_tells_the_warnings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = stderr_as_terminal(monkeypatch)
    with download_progress(quiet=True) as progress:
        progress.transfer("a.gz", 0, 10)
        progress.warn("beware")
    assert terminal.getvalue() == "nnctl: warning: beware\n"


def test_known_set_that_comes_with_nnctl_is_never_downloaded(
    tiny: Path, server: Server, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = replace(server.tiny(), name="absent")
    monkeypatch.setitem(CATALOGUE, "absent", own)
    assert run(["data", "fetch", "absent", "--mirror", server.mirror("good")]) == 4
    assert "absent comes with nnctl: install nnctl again" in capsys.readouterr().err
    assert server.asked == []


# Drawing.

SAMPLE = ["data", "show", "mnist-sample"]


def drawn(capsys: Capture, *arguments: str) -> str:
    assert run([*SAMPLE, *arguments]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    return output


@pytest.fixture
def sample() -> DataSet:
    return load("mnist-sample", Source())


def pictures(images: Array, captions: list[str]) -> str:
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as captured:
        console.print(Gallery(images.reshape(-1, 28, 28), captions))
    return captured.get()


def test_show_draws_the_images_asked_for_with_their_labels(
    capsys: Capture, sample: DataSet
) -> None:
    chosen = [2, 7, 8, 9]
    captions = [f"image {index}: {sample.train.labels[index]}" for index in chosen]
    expected = pictures(sample.train.images[chosen], captions)
    assert drawn(capsys, "--index", "2, 7-9") == expected
    captions = [f"image {index}: {sample.test.labels[index]}" for index in chosen]
    expected = pictures(sample.test.images[chosen], captions)
    assert drawn(capsys, "--index", "2,7-9", "--split", "test") == expected


def test_show_draws_beside_each_image_what_training_sees(capsys: Capture, sample: DataSet) -> None:
    options = Augmentation(shift=2, rotate=20, elastic=Elastic(strength=3))
    change = Augmenter(options, sample.train.images, (28, 28), seed=0)
    expected = ""
    for index in (4, 6):
        seen = [change(epoch, np.array([index]))[0] for epoch in (1, 2)]
        captions = [f"image {index}: {sample.train.labels[index]}", "epoch 1", "epoch 2"]
        expected += pictures(np.array([sample.train.images[index], *seen]), captions)
    yaml = "{shift: 2, rotate: 20, elastic: {strength: 3}}"
    assert drawn(capsys, "--index", "4,6", "--epochs", "2", "--augment", yaml) == expected


def test_show_augments_as_a_config_does_with_its_seed(
    capsys: Capture, sample: DataSet, tmp_path: Path
) -> None:
    config = tmp_path / "a.yaml"
    config.write_text("{seed: 4, data: {augment: {rotate: 40}}, network: [{affine: 10}]}")
    change = Augmenter(Augmentation(rotate=40), sample.train.images, (28, 28), seed=4)
    images = np.array([sample.train.images[0], change(1, np.array([0]))[0]])
    expected = pictures(images, [f"image 0: {sample.train.labels[0]}", "epoch 1"])
    assert drawn(capsys, "--index", "0", "--augment", str(config)) == expected


def test_show_draws_an_augmentation_of_nothing_as_the_image_itself(capsys: Capture) -> None:
    for line in drawn(capsys, "--index", "1", "--augment", "{}").splitlines()[:-1]:
        assert line[:28] == line[30:58]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--index", "10000"], "--index 10000: the 10,000 images are numbered from 0 to 9,999"),
        (["--index", "0-2000", "--split", "test"], "--index 2000: the 2,000 images are"),
        (["--index", "5-3"], "'5-3' runs backwards"),
        (["--index", "1,,2"], "'1,,2' is not a list such as 0,7,20-29"),
        (["--index", "-1"], "'-1' is not a list"),
        (["--index", "2-"], "'2-' is not a list"),
        (["--index", "\u0663"], "is not a list"),
        (["--augment", "quickstart"], "--augment quickstart: this config has no data.augment"),
        (["--augment", "absent"], "no config file 'absent'"),
        (["--augment", "{shft: 2}"], "--augment: unknown key 'shft' in data.augment; did you"),
        (["--augment", "{shift"], "--augment: while parsing a flow mapping"),
        (["--augment", "[2]"], "--augment: data.augment must be a mapping, not a list"),
        (["--augment", "{}", "--split", "test"], "--augment changes training images only"),
        (["--augment", "{}", "--epochs", "0"], "0 is not in the range x>=1"),
    ],
)
def test_show_refuses_what_it_cannot_draw(
    capsys: Capture, arguments: list[str], words: str
) -> None:
    assert run([*SAMPLE, *arguments]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert words in errors
