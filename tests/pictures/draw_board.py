"""Draws the README's picture of the drawing board, from a page that `nnctl export` wrote.

nnctl export --format html --output board.html
python tests/pictures/draw_board.py board.html
"""

import base64
import io
import sys
import time
from pathlib import Path

from PIL import Image

from nnctl.export.browser import Browser, find_chromium

WIDTH = 1240
THREE = [
    *((0.32, 0.22), (0.48, 0.15), (0.62, 0.22), (0.62, 0.36), (0.46, 0.46)),
    *((0.64, 0.56), (0.68, 0.72), (0.54, 0.85), (0.34, 0.80)),
]


def main() -> None:
    """Draw a three with the mouse, and save what the page shows."""
    program = find_chromium()
    if program is None:
        sys.exit("Chromium is not installed")
    with Browser(program) as browser:
        browser.call("Emulation.setDeviceMetricsOverride", width=WIDTH, height=900,
                     deviceScaleFactor=1, mobile=False)  # fmt: skip
        browser.open(Path(sys.argv[1]))
        left, top, side = browser.evaluate(
            "(({x, y, width}) => [x, y, width])(board.getBoundingClientRect())"
        )
        for number, (x, y) in enumerate(THREE):
            browser.call(
                "Input.dispatchMouseEvent", type="mouseMoved" if number else "mousePressed",
                x=left + x * side, y=top + y * side, button="left", buttons=1, clickCount=1,
            )  # fmt: skip
        time.sleep(1)
        height = browser.evaluate("element('inside').getBoundingClientRect().bottom + 16")
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": height, "scale": 1}
        shot = browser.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
    image = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
    image.quantize(256).save(Path(__file__).with_name("board.png"), optimize=True)


if __name__ == "__main__":
    main()
