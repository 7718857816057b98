"""Draws the README's pictures: the dashboard of a real training on MNIST, and augmented digits.

python tests/pictures/draw.py
"""

import io
import re
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI

from nnctl.config import load_settings
from nnctl.datasets import Source, load
from nnctl.datasets.augmentation import Augmenter
from nnctl.display.dashboard import View
from nnctl.training.events import StepFinished
from nnctl.training.trainer import Trainer

FOLDER = Path(__file__).parent
STEP = 6_000  # of the step that is shown
DIGITS = [5, 13, 9, 17, 0, 7]  # of the sample
EPOCHS = 7
ZOOM = 3  # pixels of the picture to one of a digit


def draw_dashboard() -> None:
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
    (FOLDER / "dashboard.svg").write_text(svg, encoding="utf-8")


def draw_augmented() -> None:
    """Save some digits, and to the right of each what the config augmented makes of it."""
    settings = load_settings("augmented")
    assert settings.data.augment is not None
    data = load("mnist-sample", Source())
    images = data.train.images
    change = Augmenter(settings.data.augment, images, data.image_shape, settings.seed)
    epochs = [change(epoch, np.array(DIGITS)) for epoch in range(1, EPOCHS + 1)]
    grid = np.stack([images[DIGITS], *epochs], axis=1).reshape(len(DIGITS), -1, *data.image_shape)
    framed = np.pad(grid, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=40)
    rows = np.concatenate([np.concatenate([*row], axis=1) for row in framed])
    picture = rows.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)
    Image.fromarray(picture).save(FOLDER / "augmented.png", optimize=True)


if __name__ == "__main__":
    draw_dashboard()
    draw_augmented()
