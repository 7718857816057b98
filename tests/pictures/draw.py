"""Draws the README's picture of the dashboard, from a real training on MNIST.

python tests/pictures/draw.py
"""

import io
import re
from contextlib import closing
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI

from nnctl.config import load_settings
from nnctl.datasets import Source, load
from nnctl.display.dashboard import View
from nnctl.training.events import StepFinished
from nnctl.training.trainer import Trainer

STEP = 6_000  # of the step that is shown


def main() -> None:
    """Train up to the step, and save what the dashboard shows then."""
    settings = load_settings("two-layer")
    data = load(settings.data.dataset, Source())
    console = Console(
        record=True, width=100, height=24, file=io.StringIO(), force_terminal=True, highlight=False
    )
    with closing(Trainer(settings, data)) as trainer:
        view = View()
        for event in trainer.events():
            view.take(event)
            if isinstance(event, StepFinished) and event.step == STEP:
                break
        console.print(view)
    svg = console.export_svg(title="nnctl train --config two-layer", theme=DIMMED_MONOKAI)
    svg = re.sub(
        r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL
    )  # the reader's own font will do
    (Path(__file__).parent / "dashboard.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
