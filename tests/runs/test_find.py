"""What RUN means: a path is a path, a word is a name first, and what is wrong is said truly."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from nnctl.errors import NnctlError, RunError, SystemFailure, UsageError
from nnctl.runs.find import distinct_names, find, find_run, find_runs
from nnctl.runs.folder import RunFolder

RUNS = Path("runs")


def make(path: str) -> Path:
    """Make a run's folder, as far as finding it goes."""
    folder = Path(path)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    for name in ("last", "best"):
        (folder / "checkpoints" / f"{name}.safetensors").write_bytes(b"")
    return folder


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a run `base` in it, one in `runs`, and one above."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    make("../base")
    make("base")
    make("runs/base")
    make("runs/lr0.3-001")
    make("runs/lr0.3-002")
    make("only-here")
    (RUNS / "latest").symlink_to("lr0.3-002")


@pytest.mark.parametrize(
    ("word", "path"),
    [
        ("base", "runs/base"),
        ("./base", "base"),
        ("../base", "../base"),
        ("runs/base", "runs/base"),
        ("runs/base/", "runs/base"),
        ("only-here", "only-here"),
        ("latest", "runs/lr0.3-002"),
        ("runs/latest", "runs/lr0.3-002"),
        ("base/checkpoints/last.safetensors", "base"),
        ("../base/checkpoints/best.safetensors", "../base"),
        ("latest/checkpoints/best.safetensors", None),  # a path, and there is none
    ],
)
def test_word_with_a_separator_is_a_path_and_another_a_name_first(
    word: str, path: str | None
) -> None:
    if path is None:
        with pytest.raises(RunError, match="there is no such path"):
            find_run(word, RUNS)
    else:
        assert find_run(word, RUNS).path == Path(path)


@pytest.mark.parametrize("word", ["../runs", "./lr0.3-001", "./only", "x/base"])
def test_path_never_means_a_run_of_that_name(word: str) -> None:
    with pytest.raises(RunError):
        find_run(word, RUNS)


@pytest.mark.parametrize(
    ("cwd", "word"), [(".", "."), ("checkpoints", ".."), ("checkpoints", "last.safetensors")]
)
def test_run_is_found_from_inside(cwd: str, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Path("base").resolve()
    monkeypatch.chdir(Path("base", cwd))
    assert find_run(word, RUNS).path.resolve() == expected


def test_run_here_that_a_name_hides_is_reported() -> None:
    assert find("base", RUNS).hidden == Path("base")
    for word in ("./base", "runs/base", "only-here", "lr0.3-001"):
        assert find(word, RUNS).hidden is None
    Path("twice").symlink_to("runs/lr0.3-001")
    (RUNS / "twice").symlink_to("lr0.3-001")
    assert find("twice", RUNS).hidden is None  # one and the same run


def test_checkpoint_file_is_of_its_run_or_on_its_own() -> None:
    path = "base/checkpoints/best.safetensors"
    found = find(path, RUNS)
    assert (found.run, found.checkpoint) == (RunFolder(Path("base")), Path(path))
    Path("lone.safetensors").write_bytes(b"")
    assert find("lone.safetensors", RUNS).run is None
    with pytest.raises(RunError, match=r"in no run's folder\n.*--from FILE"):
        find_run("lone.safetensors", RUNS)


@pytest.mark.parametrize(
    ("word", "kind", "words"),
    [
        ("", UsageError, "RUN is empty"),
        ("-q", UsageError, "'-q' looks like an option"),
        ("nope", RunError, r"no run 'nope' in runs, and no such folder here\nruns in runs: base"),
        ("./nope", RunError, r"^nope|\./nope: there is no such path"),
        ("notes.txt", RunError, r"\./notes\.txt: a file, neither a run's folder nor a checkpoint"),
        ("base/manifest.json", RunError, r"a file, neither .*\nthe run is base"),
        ("empty", RunError, r"\./empty: a folder, but not a run's: it has no manifest\.json"),
        ("gone", RunError, r"runs/gone: a link to lr9-001, which leads nowhere"),
        ("lr0.3*", UsageError, r"a pattern, where one run is meant; matches runs/lr0\.3-001, "),
        ("x" * 5000, RunError, "no run 'xxx"),
        ("x\x1b[31m", RunError, r"no run 'x\\\\x1b\[31m'"),
    ],
)
def test_what_is_wrong_with_a_word_is_said_truly(
    word: str, kind: type[NnctlError], words: str
) -> None:
    Path("notes.txt").write_text("")
    Path("empty").mkdir()
    (RUNS / "gone").symlink_to("lr9-001")
    with pytest.raises(kind, match=words):
        find_run(word, RUNS)


def test_latest_that_leads_nowhere_is_not_an_absent_run() -> None:
    (RUNS / "latest").unlink()
    (RUNS / "latest").symlink_to("lr0.3-009")
    with pytest.raises(RunError, match=r"runs/latest: a link to lr0\.3-009, which leads nowhere"):
        find_run("latest", RUNS)


def test_run_that_can_not_be_seen_is_not_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where another one would be next."""

    def refuse(path: str | Path, **options: object) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "stat", refuse)
    for word in ("base", "./base"):
        with pytest.raises(SystemFailure, match="permission denied"):
            find_run(word, RUNS)


def test_pattern_means_runs_by_name_each_once() -> None:
    def paths(*words: str) -> list[str]:
        return [str(run.path) for run in find_runs(words, RUNS)]

    assert paths("lr0.3*") == ["runs/lr0.3-001", "runs/lr0.3-002"]
    assert paths("base", "lr0.3-00[12]", "latest") == [
        *("runs/base", "runs/lr0.3-001", "runs/lr0.3-002")
    ]
    assert paths("only-*") == ["only-here"]  # none in runs
    assert paths("./*") == ["base", "only-here"]
    assert paths("*") == ["runs/base", "runs/lr0.3-001", "runs/lr0.3-002"]  # latest is one of them
    with pytest.raises(RunError, match=r"momentum\*: no run matches\nruns in runs: base"):
        paths("momentum*")
    Path("a[b]").mkdir()
    assert [str(run.path) for run in find_runs(["x*"], Path(make("a[b]/x-001").parent))] == [
        "a[b]/x-001"
    ]


@pytest.mark.parametrize("path", ["job", "-x", "./job", "a/b", "/a", ".", ".."])
def test_run_is_shown_as_a_path_that_means_it(path: str) -> None:
    shown = str(RunFolder(Path(path)))
    assert Path(shown) == Path(path)
    assert os.sep in shown or shown in (".", "..")
    assert not shown.startswith("-")


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        ([], []),
        (["runs/a", "other/b"], ["a", "b"]),
        (["runs/a", "other/a"], ["runs/a", "other/a"]),
        (["x/1/s", "x/2/s", "y/1/s"], ["x/1/s", "x/2/s", "y/1/s"]),
        (["runs/a", "runs/a"], ["a", "a"]),
    ],
)
def test_runs_are_told_apart_by_as_little_of_their_paths_as_it_takes(
    paths: list[str], names: list[str]
) -> None:
    assert distinct_names([RunFolder(Path(path)) for path in paths]) == names
