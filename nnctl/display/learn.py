"""What stands around a command in `nnctl learn`: its step before it, and a question after it."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from nnctl.course import Course, CourseStep


@dataclass(frozen=True)
class Opening:
    """A step's concept and text, which stand before its command."""

    course: Course
    step: CourseStep

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the heading, the text, and where the code lies."""
        steps, words, step = self.course.steps, self.course.words, self.step
        number = words.step.format(number=steps.index(step) + 1, count=len(steps))
        yield Text(f"{number}: {step.concept}", style="bold")
        yield Text(f"\n{step.text}")
        yield Text(f"{words.code}: {step.code.replace('`', '')}", style="dim")


def question(course: Course, step: CourseStep) -> Text:
    """Return the question that the next step answers."""
    return Text(f"\n{course.words.question}: {step.question.replace('`', '')}\n", style="bold")


@dataclass(frozen=True)
class Contents:
    """The steps of a course, a line each."""

    course: Course

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield number, concept and command of each step."""
        for number, step in enumerate(self.course.steps, 1):
            yield Text.assemble((f"{number:>2}  {step.concept}", "bold"))
            yield Text(f"    {step.command}")
