"""The course of `nnctl learn`: its steps and texts are files of data beside this one."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class CourseStep:
    """One concept: what is said of it, and the command that shows it."""

    name: str
    concept: str
    text: str
    question: str  # which the next step answers
    code: str  # where it is written, in Markdown
    command: str
    before: str | None = None  # a command that has to have run

    @property
    def commands(self) -> list[str]:
        """What is run, in order."""
        return [self.command] if self.before is None else [self.before, self.command]


@dataclass(frozen=True, kw_only=True)
class Words:
    """What stands around the steps in a language."""

    step: str  # with {number} and {count}
    code: str
    question: str
    more: str  # what to press


@dataclass(frozen=True)
class Course:
    """The steps in order, in one language."""

    steps: list[CourseStep]
    words: Words


def read_course(language: str) -> Course:
    """Return the course in `language`, en or ko."""
    texts = _read(language)
    steps = [
        CourseStep(**step, **{name: text.strip() for name, text in texts[step["name"]].items()})
        for step in _read("steps")["step"]
    ]
    return Course(steps, Words(**texts["words"]))


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / f"{name}.toml").read_text(encoding="utf-8"))
