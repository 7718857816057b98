"""`nnctl predict`, on runs trained on the bundled sample."""

from __future__ import annotations

import builtins
import io
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nnctl.cli.group import run
from nnctl.datasets import Samples, Source, load
from nnctl.nn.functions import Array
from nnctl.runs import checkpoint
from tests.predict.conftest import ODD, UNREADABLE

Capture = pytest.CaptureFixture[str]
FIELDS = [
    *("file", "box", "prediction", "label_name", "probability", "probabilities"),
    *("inverted", "stroke_width", "adjusted", "warnings"),
]


def lines(capsys: Capture, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    assert run(["predict", *arguments, "--json"]) == code
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@cache
def sample() -> Samples:
    return load("mnist-sample", Source()).test


def digit(index: int) -> tuple[Array, int]:
    test = sample()
    return test.images[index].reshape(28, 28), int(test.labels[index])


def save(path: Path, grey: Array) -> str:
    Image.fromarray(grey).save(path)
    return str(path)


def on_paper(image: Array) -> Array:
    return np.asarray(255 - np.pad(np.kron(image, np.ones((5, 5), np.uint8)), (9, 80)))


def test_predict_reads_digits_as_well_from_paper_as_from_the_data_set(
    runs_dir: Path, capsys: Capture, tmp_path: Path
) -> None:
    chosen = range(0, 2000, 20)
    as_they_are = [save(tmp_path / f"{index}.png", digit(index)[0]) for index in chosen]
    on_pages = [save(tmp_path / f"{index}.bmp", on_paper(digit(index)[0])) for index in chosen]
    labels = [digit(index)[1] for index in chosen]
    rights = []
    for files in (as_they_are, on_pages):
        found = lines(capsys, *files, "--run", "wide-001")
        assert [row["file"] for row in found] == files
        rights.append(sum(row["prediction"] == y for row, y in zip(found, labels, strict=True)))
    plain, read = rights
    assert plain > 80
    assert read >= plain - 3


def test_line_has_the_fields_of_the_contract(
    runs_dir: Path, capsys: Capture, tmp_path: Path
) -> None:
    image, _ = digit(3)
    [row] = lines(capsys, save(tmp_path / "a.png", on_paper(image)))
    assert list(row) == FIELDS
    assert row["inverted"] is True
    assert (
        row["probability"] == max(row["probabilities"]) == row["probabilities"][row["prediction"]]
    )
    assert sum(row["probabilities"]) == pytest.approx(1)
    assert row["label_name"] == str(row["prediction"])
    left, top, right, bottom = row["box"]
    assert 9 <= left < right <= 9 + 140
    assert 9 <= top < bottom <= 9 + 140
    assert (row["adjusted"], row["warnings"]) == (None, [])


def test_all_odd_files_are_read_alike(runs_dir: Path, capsys: Capture, tmp_path: Path) -> None:
    for name, data in ODD.items():
        (tmp_path / name).write_bytes(data)
    found = lines(capsys, *(str(tmp_path / name) for name in ODD), "--run", "wide-001")
    assert len(found) == len(ODD) >= 20
    assert {row["prediction"] for row in found} == {7}


def test_unreadable_files_are_told_and_the_others_answered(
    runs_dir: Path, capsys: Capture, tmp_path: Path
) -> None:
    files = []
    for name, (data, _) in UNREADABLE.items():
        (tmp_path / name).write_bytes(data)
        files += [str(tmp_path / name), save(tmp_path / f"good-{name}.png", on_paper(digit(0)[0]))]
    assert len(UNREADABLE) >= 20
    assert run(["predict", *files, "--json"]) == 4
    out, err = capsys.readouterr()
    assert [json.loads(line)["file"] for line in out.splitlines()] == files[1::2]
    told = err.removeprefix("nnctl: error: ").splitlines()
    assert len(told) == len(UNREADABLE)
    for line, name in zip(told, UNREADABLE, strict=True):
        assert line.startswith(f"{tmp_path / name}: ")


def test_several_digits_are_lines_from_left_to_right(
    runs_dir: Path, capsys: Capture, tmp_path: Path
) -> None:
    strip = np.hstack([on_paper(digit(index)[0]) for index in (0, 400, 800)])
    file = save(tmp_path / "number.png", strip)
    found = lines(capsys, file, "--several")
    assert [row["file"] for row in found] == [file] * 3
    assert [row["box"][0] // 229 for row in found] == [0, 1, 2]
    [row] = lines(capsys, file)
    assert "--several" in row["warnings"][-1]


def test_box_is_in_pixels_of_the_file_also_where_that_is_large(
    runs_dir: Path, capsys: Capture, tmp_path: Path
) -> None:
    grey = on_paper(digit(3)[0])
    [small] = lines(capsys, save(tmp_path / "small.png", grey))
    [large] = lines(capsys, save(tmp_path / "large.png", grey.repeat(9, 0).repeat(9, 1)))
    assert large["box"] == pytest.approx([9 * place for place in small["box"]], abs=9)


def test_standard_input_is_read(
    runs_dir: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(ODD["phone.jpg"]))
    monkeypatch.setattr(sys, "stdin", stream)
    [row] = lines(capsys, "-")
    assert row["file"] == "-"


def test_stages_are_drawn_for_a_person(
    runs_dir: Path, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save(tmp_path / "a\n.png", on_paper(digit(3)[0]))
    for width, name in ((100, "C.UTF-8"), (20, "C")):
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("LC_ALL", name)
        assert run(["predict", file]) == 0
        out, err = capsys.readouterr()
        shown = " ".join(out.split())
        assert "\\n.png: " in shown
        for stage in ("the picture", "its ink", "the ink's box", "network sees"):
            assert stage in shown
        assert out.count("%") == 3
        assert max(map(len, out.splitlines())) <= width
        assert err == ""


def test_what_lies_outside_of_mnist_is_warned_of(
    runs_dir: Path, capsys: Capture, tmp_path: Path
) -> None:
    thin = np.full((300, 300), 255, np.uint8)
    thin[40:260, 150:152] = 0
    thin[40:42, 90:150] = 0
    small = np.full((60, 60), 255, np.uint8)
    small[20:29, 20:23] = 0
    images = {
        "thin": (thin, "thickened"),
        "small": (small, "too small"),
        "off-centre": (np.roll(digit(3)[0], -4, axis=0), "centre"),
        "touching": (digit(3)[0][4:24, 4:24].repeat(2, 0).repeat(2, 1)[:28, :28], "long"),
    }
    for name, (image, reason) in images.items():
        [row] = lines(capsys, save(tmp_path / f"{name}.png", image))
        assert row["warnings"]
        assert reason in " ".join(row["warnings"])
        assert run(["predict", str(tmp_path / f"{name}.png")]) == 0
        assert f"nnctl: warning: {tmp_path / name}.png: " in capsys.readouterr().err


def test_saved_stages_are_pictures_that_are_replaced_but_nobody_elses(
    runs_dir: Path, capsys: Capture, tmp_path: Path
) -> None:
    file, folder = save(tmp_path / "a.png", on_paper(digit(3)[0])), tmp_path / "new" / "stages"
    for _ in range(2):
        lines(capsys, file, "--save", str(folder))
        names = sorted(path.name for path in folder.iterdir())
        assert names == ["a.png-1-28x28.png", "a.png-1-box.png", "a.png-ink.png"]
    with Image.open(folder / names[0]) as image:
        assert image.size == (28, 28)
    # what was saved is read again as it is
    [first], [again] = lines(capsys, file), lines(capsys, str(folder / names[0]))
    assert again["probabilities"] == first["probabilities"]
    save(folder / names[1], on_paper(digit(4)[0]))
    before = (folder / names[1]).read_bytes()
    assert run(["predict", file, "--save", str(folder)]) == 1
    assert names[1] in capsys.readouterr().err
    assert (folder / names[1]).read_bytes() == before


def test_requirement_holds_for_each_picture(
    runs_dir: Path, capsys: Capture, tmp_path: Path
) -> None:
    files = [save(tmp_path / f"{i}.png", on_paper(digit(i)[0])) for i in (0, 900)]
    assert len(lines(capsys, *files, "--require", "probability>0")) == 2
    assert len(lines(capsys, *files, "--require", "probability>1.5", code=3)) == 2
    assert len(lines(capsys, *files, "nothing.png", "--require", "probability>1.5", code=4)) == 2
    assert run(["predict", *files, "--require", "size>1"]) == 2


def test_network_of_other_images_gets_the_picture_resized(
    runs_dir: Path, capsys: Capture, tmp_path: Path
) -> None:
    from dataclasses import replace

    made = checkpoint.load(runs_dir / "wide-001" / "checkpoints" / "best.safetensors")
    names = tuple("abcdefghij")
    other = replace(made, mnist_like=False, class_names=names)
    (tmp_path / "other.safetensors").write_bytes(b"".join(checkpoint.dump(other)))
    image, _ = digit(3)
    file = save(tmp_path / "a.png", np.kron(image, np.ones((10, 10), np.uint8)))
    [row] = lines(capsys, file, "--run", str(tmp_path / "other.safetensors"))
    [plain] = lines(capsys, save(tmp_path / "b.png", image))
    assert row["probabilities"] == pytest.approx(plain["probabilities"], abs=1e-3)
    assert row["label_name"] == names[row["prediction"]]
    assert (row["box"], row["warnings"]) == (None, [])


def test_folder_is_no_picture(runs_dir: Path, capsys: Capture, tmp_path: Path) -> None:
    assert run(["predict", str(tmp_path)]) == 4
    assert f"{tmp_path}: a folder; name the pictures in it" in capsys.readouterr().err


def test_checkpoint_of_a_folder_needs_no_folder(
    runs_dir: Path, capsys: Capture, tmp_path: Path
) -> None:
    from dataclasses import replace

    made = checkpoint.load(runs_dir / "wide-001" / "checkpoints" / "best.safetensors")
    settings = replace(made.settings, data=replace(made.settings.data, dataset="./gone"))
    path = tmp_path / "own.safetensors"
    path.write_bytes(b"".join(checkpoint.dump(replace(made, settings=settings))))
    file = save(tmp_path / "a.png", on_paper(digit(3)[0]))
    assert len(lines(capsys, file, "--run", str(path))) == 1


def test_evaluate_measures_on_a_folder_of_own_pictures(
    runs_dir: Path, capsys: Capture, tmp_path: Path
) -> None:
    rights = 0
    for index in range(0, 2000, 40):
        image, label = digit(index)
        (tmp_path / "digits" / str(label)).mkdir(parents=True, exist_ok=True)
        file = save(tmp_path / "digits" / str(label) / f"{index}.png", on_paper(image))
        rights += lines(capsys, file, "--run", "wide-001")[0]["prediction"] == label
    evaluate = ["evaluate", "wide-001", "--dataset"]
    assert run([*evaluate, "./digits", "--json", "--predictions", "p.csv"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["dataset"], report["samples"]) == ("./digits", 50)
    assert report["accuracy"] == rights / 50 > 0.8
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 51
    assert run([*evaluate, "./digits"]) == 0
    assert run([*evaluate, "digits"]) == 2
    (tmp_path / "digits" / "7" / "bad.png").write_bytes(b"no")
    assert run([*evaluate, "./digits"]) == 4


def test_missing_extra_is_named(
    runs_dir: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def absent(name: str, *arguments: Any) -> Any:
        if name.split(".")[0] == "PIL":
            raise ModuleNotFoundError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", absent)
    assert run(["predict", "a.png"]) == 2
    assert "pip install 'nnctl[pictures]'" in capsys.readouterr().err
