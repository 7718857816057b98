import io
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from nnctl.config import load_settings
from nnctl.datasets import Source, load
from nnctl.display import dashboard as dashboard_module
from nnctl.display.dashboard import SHARE, View, bar, dashboard, flow
from nnctl.display.region import Region
from nnctl.training.events import RunStarted, StepFinished
from nnctl.training.trainer import Trainer

EPOCHS = 3


class Terminal(io.StringIO):
    """What a terminal shows of what is written to it; wraps, and wraps anew when resized."""

    encoding = "utf-8"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.rows = [""]
        self.wrapped = [False]  # the row goes on in the next one
        self.row = self.column = 0
        self.writes = 0

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.writes += bool(text)
        rest = text
        while rest:
            if rest.startswith("\x1b["):
                end = next(i for i, c in enumerate(rest) if c.isalpha())
                self._obey(rest[end], rest[2:end])
                rest = rest[end + 1 :]
                continue
            self._put(rest[0])
            rest = rest[1:]
        return len(text)

    def _obey(self, command: str, argument: str) -> None:
        if command == "A":
            self.row = max(self.row - int(argument), 0)
        elif command == "K":
            self.rows[self.row] = self.rows[self.row][: self.column]
            self.wrapped[self.row] = False
        elif command == "J":
            self._obey("K", "")
            del self.rows[self.row + 1 :], self.wrapped[self.row + 1 :]
        else:
            assert command == "m"  # colour

    def _put(self, character: str) -> None:
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self._down()
        else:
            if self.column == self.width:
                self.wrapped[self.row] = True
                self._down()
            row = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = row[: self.column] + character + row[self.column + 1 :]
            self.column += 1

    def _down(self) -> None:
        self.row, self.column = self.row + 1, 0
        if self.row == len(self.rows):
            self.rows.append("")
            self.wrapped.append(False)

    def resize(self, width: int) -> None:
        """Wrap all lines anew, as most terminals do; the cursor is at the end."""
        text = "".join(
            row + ("" if wrapped else "\n")
            for row, wrapped in zip(self.rows, self.wrapped, strict=True)
        )
        self.width = width
        self.rows, self.wrapped, self.row, self.column = [""], [False], 0, 0
        for character in text.removesuffix("\n"):
            self._put(character)

    @property
    def text(self) -> str:
        return "\n".join(self.rows).rstrip()


def screen_of(file: IO[str], width: int = 80, height: int = 24) -> Console:
    screen = Console(file=file, width=width, height=height, highlight=False)
    screen.legacy_windows = False
    return screen


def test_region_replaces_what_it_drew() -> None:
    terminal = Terminal(20)
    terminal.write("before\n")
    region = Region(screen_of(terminal, 20))
    region.draw(Text("one\ntwo\nthree is long"))
    region.draw(Text("four\nfive"))
    assert terminal.text == "before\nfour\nfive"
    region.draw(Text("six\nseven\neight\nnine"))
    assert terminal.text == "before\nsix\nseven\neight\nnine"


def test_region_is_erased_without_a_trace() -> None:
    terminal = Terminal(20)
    terminal.write("before\n")
    region = Region(screen_of(terminal, 20))
    region.draw(Text("one\ntwo\nthree"))
    terminal.write("^C")  # as typed
    region.erase()
    terminal.write("after\n")
    assert terminal.text == "before\nafter"


def test_region_survives_a_terminal_that_becomes_narrower_and_wider() -> None:
    terminal = Terminal(40)
    terminal.write("before\n")
    screen = screen_of(terminal, 40)
    region = Region(screen)
    region.draw(Text("a" * 35 + "\n" + "b" * 12 + "\nshort"))
    for width in (10, 17, 40, 5):
        terminal.resize(width)
        screen.width = width
        region.draw(Text("one\ntwo\nnew"))
        assert terminal.text == "\n".join([*wrapped("before", width), "one", "two", "new"])
        region.draw(Text("c" * width + "\n" + "d" * width))
    region.erase()
    assert terminal.text == "\n".join(wrapped("before", 5))


def wrapped(text: str, width: int) -> list[str]:
    return [text[start : start + width] for start in range(0, len(text), width)]


def test_region_leaves_out_what_the_terminal_is_too_low_for() -> None:
    terminal = Terminal(20)
    Region(screen_of(terminal, 20, height=3)).draw(Text("one\ntwo\nthree\nfour"))
    assert terminal.text == "one\ntwo"


def new_trainer() -> Trainer:
    overrides = {
        "data.dataset": "mnist-sample",
        "data.train_size": "600",
        "data.validation": "200",
        "training.epochs": str(EPOCHS),
    }
    settings = load_settings("two-layer", [*overrides.items()])
    return Trainer(settings, load("mnist-sample", Source()), 1)


@pytest.fixture
def trainer() -> Iterator[Trainer]:
    with closing(new_trainer()) as trainer:
        yield trainer


def attach(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a terminal standard error."""
    monkeypatch.setattr(dashboard_module, "console", lambda stderr: screen_of(terminal))


class Clock:
    """Time that passes only when told to."""

    time = 100.0

    def perf_counter(self) -> float:
        return self.time


STARTED = RunStarted(
    run_dir="",
    name="two-layer",
    seed=0,
    dataset="mnist-sample",
    train_samples=600,
    validation_samples=200,
    test_samples=2000,
    parameters=39_760,
    threads=1,
    step=0,
    batch_size=100,
    steps_per_epoch=6,
    epochs=EPOCHS,
    monitored="validation",
)


def test_dashboard_redraws_at_most_ten_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, clock = Terminal(80), Clock()
    attach(terminal, monkeypatch)
    monkeypatch.setattr(dashboard_module, "time", clock)
    show = dashboard()
    show(STARTED)
    for step in range(1, 2001):
        clock.time += 0.001
        show(StepFinished(1, step, 2.0, 0.1))
    assert 15 <= terminal.writes <= 21  # the first one at once


def test_slow_redraws_become_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, clock = Terminal(80), Clock()
    attach(terminal, monkeypatch)
    monkeypatch.setattr(dashboard_module, "time", clock)

    def slow_draw(region: Region, content: object) -> None:
        terminal.writes += 1
        clock.time += 0.03

    monkeypatch.setattr(Region, "draw", slow_draw)
    show = dashboard()
    show(STARTED)
    for step in range(1, 60_001):
        clock.time += 0.001
        show(StepFinished(1, step, 2.0, 0.1))
    assert 0.5 < terminal.writes * 0.03 / 60 / SHARE <= 1.05


@pytest.mark.parametrize("result_on_terminal", [False, True])
def test_dashboard_gives_way_to_a_result_on_the_same_terminal(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, result_on_terminal: bool
) -> None:
    terminal = Terminal(80)
    attach(terminal, monkeypatch)
    monkeypatch.setattr("sys.stdout", terminal if result_on_terminal else io.StringIO())
    terminal.write("$ nnctl train\n")
    show = dashboard()
    for event in trainer.events():
        show(event)
    if result_on_terminal:
        assert terminal.text == "$ nnctl train"
    else:
        assert f"epoch {EPOCHS}/{EPOCHS}  100%" in terminal.text


@pytest.fixture(scope="module")
def view() -> Iterator[View]:
    """The dashboard in the middle of the last epoch."""
    with closing(new_trainer()) as trainer:
        view = View()
        for event in trainer.events():
            view.take(event)
            if isinstance(event, StepFinished) and event.epoch == EPOCHS:
                break
        yield view


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("width", [20, 40, 80, 120])
@pytest.mark.parametrize("height", [5, 12, 24, 50])
def test_dashboard_fits_the_terminal(view: View, width: int, height: int, encoding: str) -> None:
    terminal = Terminal(width)
    terminal.encoding = encoding
    Region(screen_of(terminal, width, height)).draw(view)
    assert max(map(cell_len, terminal.rows)) <= width
    assert len(terminal.rows) <= height
    assert encoding != "ascii" or terminal.text.isascii()


def test_dashboard_shows_how_far_how_fast_and_how_well(view: View) -> None:
    terminal = Terminal(120)
    Region(screen_of(terminal, 120, 40)).draw(view)
    best = min(view._rows, key=lambda row: row["validation_loss"])
    for words in (
        f"epoch {EPOCHS}/{EPOCHS}   72%",  # 2 epochs of 6 steps, and one step more, of 18
        "step 13/18",
        "images/s",
        "left",
        "learning rate 0.1",
        f"best epoch {best['epoch']}  validation loss {best['validation_loss']:.4f}",
        "accuracy (%)",
        "So far: overfitting is undecided: too few epochs",
    ):
        assert words in terminal.text


def test_narrow_or_low_terminal_has_fewer_charts(view: View) -> None:
    shown = {}
    for size in ((120, 24), (40, 50), (40, 24), (40, 8)):
        terminal = Terminal(size[0])
        Region(screen_of(terminal, *size)).draw(view)
        shown[size] = terminal.text.count("└")
    assert shown == {(120, 24): 2, (40, 50): 2, (40, 24): 1, (40, 8): 0}


def test_bar_needs_no_colour() -> None:
    options = screen_of(Terminal(80)).options
    assert bar(0.25, 8, options) == "━━┄┄┄┄┄┄"
    options.encoding = "ascii"
    assert bar(1.0, 4, options) == "===="
    assert bar(0.5, 0, options) == ""


def test_flow_breaks_between_parts_only() -> None:
    assert flow(["one two", "three", "four"], 14) == "one two  three\nfour"
    assert flow(["wider than that", "x"], 5) == "wider than that\nx"


def test_dashboard_can_become_a_picture(view: View, tmp_path: Path) -> None:
    screen = Console(record=True, width=100, height=30, file=io.StringIO())
    screen.print(view)
    screen.save_svg(str(tmp_path / "dashboard.svg"), title="nnctl train")
    assert "accuracy" in (tmp_path / "dashboard.svg").read_text("utf-8")
