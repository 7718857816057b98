"""`nnctl report`: one page, which says what `nnctl evaluate` says and nothing that could act."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from nnctl.cli.group import run
from nnctl.config import load_settings
from nnctl.datasets import DataSet, Source, load
from nnctl.display.verdict import describe_end
from nnctl.runs import lock
from nnctl.runs.recorder import train

Capture = pytest.CaptureFixture[str]
VOID = {"br", "img", "meta", "link", "input", "hr"}
SMALL = {
    **{"data.train_size": "1000", "data.validation": "300", "training.epochs": "3"},
    **{"network.0.affine.units": "30", "optimizer": "momentum"},
}


class Page(HTMLParser):
    """A page as a browser takes it apart: its elements, what they hold, and their text."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.values: list[tuple[float, str]] = []  # of `data`: exact, and as shown
        self.text = ""
        self.open: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == [], "an element has no end"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "data":
            self.values.append((float(dict(attrs)["value"] or "nan"), ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.text += "\n"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "data":
            self.values[-1] = (self.values[-1][0], self.values[-1][1] + data)
        if "style" not in self.open:
            self.text += data

    def attributes(self) -> Iterator[tuple[str, str, str]]:
        for tag, attributes in self.elements:
            for name, value in attributes.items():
                yield tag, name, value or ""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs a-001, b-001 and unread-001, which left the test set alone."""
    folder = tmp_path_factory.mktemp("trained") / "runs"
    data = load("mnist-sample", Source())
    unread = load("mnist-sample", Source(), parts=("train",))
    for name, seed, images in (("a", "0", data), ("b", "1", data), ("unread", "0", unread)):
        one(folder, images, name=name, seed=seed)
    return folder


def one(folder: Path, data: DataSet, **overrides: str) -> None:
    settings = load_settings("quickstart", [*(SMALL | overrides).items()])
    with lock.new_run(None, folder, settings.name) as claimed:
        for _ in train(settings, data, claimed, threads=1):
            pass
        lock.point_latest(folder, claimed)


@pytest.fixture
def runs_dir(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "runs", symlinks=True)
    return tmp_path / "runs"


def report(*arguments: str, file: str = "page.html") -> Page:
    assert run(["report", *arguments, "--output", file]) == 0
    return Page(Path(file).read_text(encoding="utf-8"))


def evaluation(capsys: Capture, *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["evaluate", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_report_shows_the_figures_of_evaluate(runs_dir: Path, capsys: Capture) -> None:
    page = report("a-001")
    found = evaluation(capsys, "a-001")
    exact = {shown: value for value, shown in page.values}
    low, high = found["accuracy_interval"]
    for key, value in ((f"{found['accuracy']:.2%}", found["accuracy"]), (f"{low:.2%}", low)):
        assert exact[key] == value
    assert exact[f"{high:.2%}"] == high
    assert exact[f"{found['loss']:.4f}"] == found["loss"]
    cells = [line for line in page.text.split("\n") if line]
    start = cells.index("Confusion matrix")
    counts = [int(cell.replace("·", "0").replace(",", "")) for cell in cells[start + 11 :][:110]]
    assert [row[1:] for row in np.reshape(counts, (10, 11)).tolist()] == found["confusion_matrix"]
    for figures in found["per_class"]:
        row = [f"{figures[key]:.1%}" for key in ("precision", "recall", "f1")]
        assert "\n".join([str(figures["label"]), *row, str(figures["support"])]) in page.text


def test_report_says_the_verdict_with_its_evidence(runs_dir: Path) -> None:
    summary = json.loads((runs_dir / "a-001" / "summary.json").read_text())
    text = report("a-001").text
    for line in describe_end(summary, "validation").split("\n"):
        assert line in text
    assert f"{summary['overfitting']['gap']:.4g}" in text


def test_report_measures_what_the_run_has_read(runs_dir: Path, capsys: Capture) -> None:
    page = report("unread-001")
    assert "300 validation images, best checkpoint" in page.text
    found = evaluation(capsys, "unread-001", "--split", "validation")
    assert found["accuracy"] in [value for value, _ in page.values]
    assert "2,000 test images" in report("unread-001", "--split", "test").text


def test_report_has_the_same_bytes_twice(runs_dir: Path, capfdbinary: Any) -> None:
    report("a-001", "b-001", file="one.html")
    report("a-001", "b-001", file="two.html")
    content = Path("one.html").read_bytes()
    assert content == Path("two.html").read_bytes()
    capfdbinary.readouterr()
    assert run(["report", "a-001", "b-001", "--output", "-"]) == 0
    assert capfdbinary.readouterr().out == content


def test_report_asks_for_nothing_and_runs_nothing(runs_dir: Path) -> None:
    page = report("a-001", "b-001")
    tags = {tag for tag, _ in page.elements}
    assert tags.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form"})
    for tag, name, value in page.attributes():
        assert not name.startswith("on"), (tag, name)
        assert name != "style"
        if name in ("src", "href"):
            assert value.startswith(("data:image/png;base64,", "#")), value
    style = re.search(r"<style>(.*?)</style>", Path("page.html").read_text(), re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policies = [content for tag, name, content in page.attributes() if name == "content"]
    assert f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'" in policies


def test_report_shows_what_comes_from_outside_as_text(runs_dir: Path) -> None:
    hostile = "<script>alert(1)</script>\x1b[31m\u202e\"'&"
    (runs_dir / "a-001").rename(runs_dir / "<img src=x onerror=alert(1)>")
    folder = runs_dir / "<img src=x onerror=alert(1)>"
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["command"] = manifest["blas"] = hostile
    manifest["versions"] = {hostile: hostile}
    manifest["data_sha256"] |= {hostile: hostile}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    page = report(f"runs/{folder.name}")
    tags = [tag for tag, _ in page.elements]
    assert "script" not in tags
    assert all(not name.startswith("on") for _, name, _ in page.attributes())
    assert "<img src=x onerror=alert(1)>\n" in page.text
    assert "<script>alert(1)</script>\\x1b[31m\\u202e\"'&" in page.text
    assert "\x1b" not in page.text
    assert "\u202e" not in page.text


def test_report_names_the_classes_of_clothes_and_escapes_names(runs_dir: Path) -> None:
    from nnctl.report.contents import RunContents, measure
    from nnctl.report.page import runs_page
    from nnctl.runs.checkpoint import load as load_checkpoint
    from nnctl.runs.folder import RunFolder
    from nnctl.runs.run import read_stored_run

    folder = RunFolder(runs_dir / "a-001")
    checkpoint = load_checkpoint(folder.best)
    data = load("mnist-sample", Source())
    found = measure(read_stored_run(folder), checkpoint, "best", data, "test")
    names = tuple(f"<b>class {label}</b>" for label in range(10))
    page = Page(runs_page([RunContents(**(vars(found) | {"class_names": names}))]).decode())
    assert page.text.count("<b>class 3</b>") > 3
    assert "Most often confused: <b>class" in page.text


def test_report_of_several_runs_says_what_compare_says(
    runs_dir: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = report("a-001", "b-001", "unread-001")
    capsys.readouterr()
    monkeypatch.setenv("COLUMNS", "1000")
    assert run(["runs", "compare", "a-001", "b-001", "unread-001"]) == 0
    table, *sentences = capsys.readouterr().out.strip().split("\n\n")
    assert len(sentences) >= 2
    for sentence in sentences:
        assert sentence in page.text
    heads = [line.split()[0] for line in table.splitlines()[1:]]
    titles = re.findall("^(.*)\n784 pixels", page.text, re.MULTILINE)
    assert titles == heads, "best first"
    for line in table.splitlines():
        assert "\n".join(re.split(" {2,}", line.strip())) in re.sub("\n+", "\n", page.text)


def test_report_of_several_runs_shows_each_ones_figures(runs_dir: Path, capsys: Capture) -> None:
    text = report("b-001", "a-001").text
    for name in ("a-001", "b-001"):
        found = evaluation(capsys, name)
        _, own = text.split(f"\n{name}\n784 pixels")
        shown = f"accuracy\n{found['accuracy']:.2%}\n\nof 2,000 test images, best checkpoint"
        assert own.index(shown) < 200
        assert f"seed\n{'ab'.index(name[0])}\n" in own[: own.find("784 pixels") % len(own)]


def test_report_of_several_runs_links_to_each(runs_dir: Path) -> None:
    page = report("a-001", "b-001")
    ids = [value for tag, name, value in page.attributes() if name == "id"]
    links = [value for tag, name, value in page.attributes() if name == "href"]
    assert links == [f"#{anchor}" for anchor in ids] == ["#run-1", "#run-2"]


def test_report_tells_runs_of_one_name_apart_by_path(runs_dir: Path) -> None:
    shutil.copytree(runs_dir / "b-001", "elsewhere/a-001")
    page = report("runs/a-001", "elsewhere/a-001")
    titles = re.findall("^(.*)\n784 pixels", page.text, re.MULTILINE)
    assert sorted(titles) == ["elsewhere/a-001", "runs/a-001"]


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of three trials, the last of which diverges."""
    folder = tmp_path_factory.mktemp("swept")
    settings = [f"--set={key}={value}" for key, value in (SMALL | {"training.epochs": "1"}).items()]
    space = ["--vary=optimizer.learning_rate=[0.05,0.1,1e30]", "--method=grid"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(["sweep", "-c", "quickstart", *space, *settings, "-q"]) == 0
    return folder / "sweeps" / "quickstart-001"


def test_report_of_a_sweep_shows_its_trials_and_the_winner(
    swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    page = report(str(swept))
    outcome = json.loads((swept / "summary.json").read_text())
    assert "grid search for validation_loss: 2 complete, 1 diverged" in page.text
    for number in range(2):
        trial = json.loads((swept / "trials" / f"{number:04}" / "trial.json").read_text())
        mark = "winner\n" if number == outcome["best"] else ""
        mark = "tied\n" if number in outcome["tied"] else mark
        value = trial["parameters"]["optimizer.learning_rate"]
        assert f"\n{number}\n{trial['objective']:.4f}\n{mark or chr(10)}{value}\n" in page.text
    assert "\n2\ndiverged\n" in page.text
    assert f"Its test accuracy: {outcome['test_accuracy']:.2%}" in page.text
    found = evaluation(capsys, outcome["best_run_dirs"][0].replace("sweeps", str(swept.parent), 1),
                       "--split", "validation")  # fmt: skip
    assert found["accuracy"] in [value for value, _ in page.values]
    assert f"Trial {outcome['best']}\n784 pixels" in page.text


def test_report_of_a_sweep_stands_alone(swept: Path, runs_dir: Path, capsys: Capture) -> None:
    assert run(["report", str(swept), "a-001", "--output", "page.html"]) == 2
    assert "a page of its own" in capsys.readouterr().err


def test_report_pictures_are_the_mistakes_and_the_weights(runs_dir: Path) -> None:
    import io

    from PIL import Image

    page = report("a-001")
    pictures = [
        Image.open(io.BytesIO(base64.b64decode((attributes["src"] or "").split(",")[1])))
        for tag, attributes in page.elements
        if tag == "img"
    ]
    *mistakes, weights = pictures
    test = load("mnist-sample", Source()).test
    indices = [int(index) for index in re.findall(r"image (\d+): ", page.text)]
    assert len(indices) == len(mistakes) == 24
    for index, picture in zip(indices, mistakes, strict=True):
        assert np.array_equal(np.array(picture).ravel(), test.images[index])
    assert weights.size == (10 * 29 - 1, 3 * 29 - 1)
    file = runs_dir / "a-001" / "checkpoints" / "best.safetensors"
    sizes = np.abs(load_file(file)["0.affine.weight"])
    opacity = np.array(weights.convert("RGBA"))[:, :, 3]
    for unit in (0, 13, 29):
        y, x = 29 * (unit // 10), 29 * (unit % 10)
        drawn = opacity[y : y + 28, x : x + 28].ravel()
        assert np.corrcoef(drawn, sizes[:, unit])[0, 1] > 0.95


def test_report_is_small_enough_to_send(runs_dir: Path) -> None:
    report("a-001")
    assert Path("page.html").stat().st_size < 500_000


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere-001"], 5, "nowhere-001"),
        (["a-001", "--output", "missing/page.html"], 1, "missing/page.html"),
        (["a-001", "--set", "x"], 2, "--set"),
    ],
)
def test_report_refuses_what_it_cannot_do(
    runs_dir: Path, capsys: Capture, arguments: list[str], code: int, words: str
) -> None:
    assert run(["report", "--output", "page.html", *arguments]) == code
    error = capsys.readouterr().err
    assert error.startswith("nnctl: error: ")
    assert words in error
    assert not Path("page.html").exists()


def test_report_of_a_damaged_manifest_is_refused(runs_dir: Path, capsys: Capture) -> None:
    (runs_dir / "a-001" / "manifest.json").write_text("[]")
    assert run(["report", "a-001", "--output", "page.html"]) == 5
    assert "manifest.json" in capsys.readouterr().err
