"""The course: its files of data, and `nnctl learn` as its user meets it."""

import os
import pty
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import nnctl.course
from nnctl.cli.group import run
from nnctl.cli.learn import LANGUAGES
from nnctl.course import read_course

FOLDER = Path(nnctl.course.__file__).parent
ROOT = FOLDER.parent.parent


def learn(*arguments: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "nnctl", "learn", *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "80", "NNCTL_OFFLINE": "1", **environment},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_language_has_the_same_steps_with_the_same_texts() -> None:
    assert {path.stem for path in FOLDER.glob("*.toml")} == {*LANGUAGES, "steps"}
    texts = [tomllib.loads((FOLDER / f"{name}.toml").read_text("utf-8")) for name in LANGUAGES]
    steps = [step["name"] for step in tomllib.loads((FOLDER / "steps.toml").read_text())["step"]]
    for each in texts:
        assert [*each] == ["words", *steps]
        assert {name: [*text] for name, text in each.items()} == {
            name: [*text] for name, text in texts[0].items()
        }
        assert all(value.strip() for text in each.values() for value in text.values())


def test_korean_is_korean_and_names_the_terms_beside_the_words_of_the_tool() -> None:
    course = read_course("ko")
    whole = " ".join(step.concept + step.text + step.question for step in course.steps)
    hangul = re.findall(r"[\uac00-\ud7a3]", whole)
    assert len(hangul) > len(re.findall("[a-zA-Z]", whole))
    for step in course.steps:
        assert re.search(r"[\uac00-\ud7a3]", step.text)
        assert re.search(r"[\uac00-\ud7a3]", step.question)
    pairs = {"손실 함수": "loss", "기울기": "gradient", "국소적 미분": "local", "에폭": "epoch"}
    for korean, english in pairs.items():
        assert re.search(rf"{korean}\([^)]*{english}", whole), korean


@pytest.mark.parametrize("step", read_course("en").steps, ids=lambda step: step.name)
def test_code_of_a_step_is_where_it_says(step: nnctl.course.CourseStep) -> None:
    files = re.findall(r"`(nnctl/[\w/]+\.py)`", step.code)
    assert files
    source = "".join((ROOT / file).read_text() for file in files)
    for name in re.findall(r"`([A-Z]\w+)", step.code):
        assert re.search(rf"class {name}\b", source)


def test_learn_prints_text_command_real_output_and_question(tmp_path: Path) -> None:
    step = read_course("en").steps[2]
    text = learn("--step", "3", folder=tmp_path)
    before, output = text.split(f"$ {step.command}\n")
    assert before.startswith(f"Step 3 of 10: {step.concept}\n")
    assert step.text in " ".join(before.split())
    real = subprocess.run(
        ["bash", "-c", step.command.replace("nnctl", f"{sys.executable} -m nnctl", 1)],
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        encoding="utf-8",
    ).stdout
    assert output.startswith(real)
    assert f"Question: {step.question}" in " ".join(output.removeprefix(real).split())


def test_learn_keeps_the_runs_of_its_steps_to_itself(tmp_path: Path) -> None:
    here, temporary = tmp_path / "here", tmp_path / "tmp"
    here.mkdir()
    temporary.mkdir()
    text = learn("--step", "10", folder=here, TMPDIR=str(temporary), NNCTL_CONFIG="none")
    assert "$ nnctl train --config quickstart -q\n" in text
    assert "2,000 images" in text
    assert list(here.iterdir()) == list(temporary.iterdir()) == []


def test_learn_speaks_korean_where_the_locale_knows_ascii_only(tmp_path: Path) -> None:
    text = learn("--step", "3", "--language", "ko", folder=tmp_path, LC_ALL="C")
    assert "연쇄법칙" in text
    assert "(apple*2 + orange*3) * tax = 715" in text


def test_learn_lists_its_steps_and_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["learn", "--list"]) == 0
    out = capsys.readouterr().out
    for number, step in enumerate(read_course("en").steps, 1):
        assert f"{number:>2}  {step.concept}\n    {step.command}" in out.replace(" \n", "\n")


def test_learn_waits_in_a_terminal_and_ends_when_asked(tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "nnctl", "learn"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        cwd=tmp_path,
        env={**os.environ, "TERM": "dumb", "NNCTL_OFFLINE": "1"},
    )
    os.close(follower)
    shown, answered = b"", False
    while True:
        try:
            chunk = os.read(leader, 65536)
        except OSError:  # Linux's end of a terminal
            break
        if not chunk:
            break
        shown += chunk
        if not answered and b"q: quit] " in shown:
            os.write(leader, b"q\n")
            answered = True
    os.close(leader)
    assert process.wait() == 0
    assert answered
    assert b"Step 1 of 10" in shown
    assert b"Step 2" not in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--step", "0"], "numbered from 1 to 10"),
        (["--step", "11"], "numbered from 1 to 10"),
        (["--step", "1", "--list"], "can't be combined"),
        (["--language", "fr"], "'en', 'ko'"),
    ],
)
def test_learn_mistakes_end_with_two(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["learn", *arguments]) == 2
    assert words in capsys.readouterr().err
