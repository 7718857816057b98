"""The drawing board, looked at as text and in a real browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnctl.datasets import Source, load
from nnctl.export.browser import Browser, find_chromium
from nnctl.export.check import READ_IMAGES
from nnctl.export.html import to_html
from nnctl.export.model import Model
from nnctl.nn.functions import Array
from nnctl.nn.layers import LAYERS, Affine, Layer
from nnctl.nn.losses import SoftmaxWithLoss
from nnctl.nn.network import Network
from nnctl.pictures.preparation import prepare
from nnctl.training.mistakes import Mistake
from tests.export.conftest import MODELS

HOSTILE = "</script><img src=x onerror=alert(1)>&lt;"


def digits_model(*widths: int) -> Model:
    """Return a network for MNIST of these hidden layers, untrained."""
    layers: list[Layer] = []
    for width in widths:
        layers += [Affine(units=width), LAYERS["relu"]()]
    network = Network([*layers, Affine(units=10)], 784)
    network.initialize(0)
    return Model(network, SoftmaxWithLoss(), (28, 28), None, mnist_like=True)


def mistakes(count: int = 16) -> list[Mistake]:
    test = load("mnist-sample", Source()).test
    return [Mistake(i, int(test.labels[i]), test.images[i], (0,), (1.0,)) for i in range(count)]


class Parts(HTMLParser):
    """The text of each style and script, and all attributes that could load something."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}
        self.links: list[str] = []
        self.policy = self._open = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self._open = f"{tag} {found.get('type', '')}".strip()
        self.links += [str(found[name]) for name in ("src", "href", "style") if name in found]
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = str(found["content"])

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open] = self.texts.get(self._open, "") + data


def test_policy_allows_the_pages_own_script_and_style_and_nothing_else() -> None:
    parts = Parts(to_html(digits_model(8), mistakes(2)))
    assert parts.links == []
    allowed = dict(rule.split(" ", 1) for rule in parts.policy.split("; "))
    digests = {
        kind: f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for kind, text in parts.texts.items()
    }
    assert allowed == {
        "default-src": "'none'",
        "script-src": digests["script"],
        "style-src": digests["style"],
    }


@pytest.mark.parametrize(("widths", "limit"), [((100,), 400_000), ((256,), 1_100_000)])
def test_page_is_small(widths: tuple[int, ...], limit: int) -> None:
    assert len(to_html(digits_model(*widths), mistakes())) <= limit


def test_text_from_outside_can_not_leave_its_place() -> None:
    model = replace(MODELS["relu"], class_names=(HOSTILE, "b", "c"))
    page = to_html(model, [])
    assert HOSTILE.encode() not in page
    assert json.loads(Parts(page).texts["script application/json"])["class_names"][0] == HOSTILE


def test_page_knows_every_layer() -> None:
    script = Parts(to_html(digits_model(8), [])).texts["script"]
    table = script.split("const LAYERS = {")[1].split("\n};")[0]
    assert set(re.findall(r"^  (\w+)", table, re.MULTILINE)) == set(LAYERS)


# In a browser.


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = find_chromium()
    if program is None:
        pytest.skip("Chromium is not installed")
    with Browser(program) as started:
        yield started


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path) -> Iterator[Any]:
    """Return a function that opens a model's page; in the end nothing was said or asked for."""

    def show(model: Model, shown: list[Mistake] | None = None, **emulated: Any) -> Browser:
        path = tmp_path / "page.html"
        path.write_bytes(to_html(model, shown or []))
        browser.open(path)
        return browser

    yield show
    said = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    assert [event["params"] for event in browser.events if event["method"] in said] == []
    asked = [event for event in browser.events if event["method"] == "Network.requestWillBeSent"]
    urls = [event["params"]["request"]["url"] for event in asked]
    assert urls == [(tmp_path / "page.html").as_uri()]


@pytest.mark.parametrize("name", MODELS)
def test_page_computes_what_nnctl_computes(name: str, open_page: Any, images: Array) -> None:
    model = MODELS[name]
    browser = open_page(model)
    text = base64.b64encode(images.tobytes()).decode()
    answer = base64.b64decode(browser.evaluate(f"({READ_IMAGES})('{text}')"))
    found, expected = np.frombuffer(answer, "<f4").reshape(-1, 3), model.scores(images)
    assert np.abs(found - expected).max() <= 2e-4 * max(1, np.abs(expected).max())


def pages() -> dict[str, Array]:
    """Return pictures of every kind that the preparation tells apart."""
    test = load("mnist-sample", Source()).test
    rng = np.random.default_rng(0)
    found: dict[str, Array] = {}
    for index, factor in enumerate([1, 3, 4, 5, 7]):
        image = test.images[100 * index].reshape(28, 28)
        ink = np.pad(np.kron(image, np.ones((factor, factor))), ((9, 30), (40, 5)))
        rows, columns = ink.shape
        found[f"scan-{factor}"] = 255 - ink
        found[f"chalk-{factor}"] = ink
        light = np.linspace(120, 230, columns) + np.linspace(-15, 15, rows)[:, None]
        found[f"photo-{factor}"] = light * (1 - 0.8 * ink / 255) + rng.normal(0, 4, ink.shape)
        found[f"image-{factor}"] = np.roll(image, index, axis=0)
    for width in (1, 2, 3, 4, 5, 60, 70, 80):  # discs of many radii
        found[f"stroke-{width}"] = np.full((200, 160), 255.0)
        found[f"stroke-{width}"][20:180, 60 : 60 + width] = 0
        found[f"stroke-{width}"][20 : 20 + width, 30:60] = 0
    thin, thick = np.full((160, 120), 255.0), np.full((160, 120), 255.0)
    thin[20:140, 60] = thin[20, 20:60] = 0
    thick[20:140, 40:90] = 0
    return found | {
        "thin": thin,
        "thick": thick,
        "specks": np.where(rng.random(thick.shape) < 0.01, 0, thick),
        "blank": np.full((50, 60), 255.0),
        "noise": rng.normal(128, 4, (80, 90)),
    }


def test_page_prepares_a_picture_as_predict_does(open_page: Any) -> None:
    browser = open_page(digits_model(8))
    for name, page in pages().items():
        grey = np.clip(page, 0, 255).astype(np.uint8)
        for dark_ink, word in ((None, "null"), (True, "true"), (False, "false")):
            rows, columns = grey.shape
            data = base64.b64encode(grey.tobytes()).decode()
            picture = f"{{rows: {rows}, columns: {columns}, data: bytesOf('{data}')}}"
            found = browser.evaluate(
                "(() => { const bytesOf = (text) => "
                "Uint8Array.from(atob(text), (character) => character.charCodeAt(0));"
                f"const {{inverted, digit}} = prepare({picture}, {word});"
                "return {inverted, box: digit && digit.box, adjusted: digit && digit.adjusted,"
                "image: digit && [...digit.image]} })()"
            )
            expected = prepare(grey, dark_ink=dark_ink)
            assert found["inverted"] == expected.inverted, name
            assert (found["image"] is None) == (not expected.digits), name
            if expected.digits:
                [digit] = expected.digits
                image = np.array(found["image"]).reshape(28, 28)
                assert abs(image - digit.image.astype(int)).max() <= 2, name
                assert found.get("adjusted") == digit.adjusted, name
                assert digit.box is None or found["box"] == digit.box._asdict(), name


# Drawing.

SEVEN = [(0.25, 0.2), (0.7, 0.18), (0.45, 0.85)]


def along(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [
        (a[0] + (b[0] - a[0]) * i / 8, a[1] + (b[1] - a[1]) * i / 8)
        for a, b in pairwise(points)
        for i in range(9)
    ]


def until(browser: Browser, condition: str) -> None:
    """Wait until a condition holds on the page."""
    end = time.monotonic() + 30
    while not browser.evaluate(f"Boolean({condition})"):
        assert time.monotonic() < end, condition
        time.sleep(0.02)


def on_board(browser: Browser, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    box = browser.evaluate("(({x, y, width, height}) => [x, y, width, height])"
                           "(board.getBoundingClientRect())")  # fmt: skip
    return [(box[0] + x * box[2], box[1] + y * box[3]) for x, y in points]


def draw_by_mouse(browser: Browser) -> None:
    for i, (x, y) in enumerate(on_board(browser, along(SEVEN))):
        kind = "mouseMoved" if i else "mousePressed"
        browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1,
                     clickCount=1)  # fmt: skip
    browser.call("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, button="left")


def draw_by_finger(browser: Browser) -> None:
    for i, (x, y) in enumerate(on_board(browser, along(SEVEN))):
        kind = "touchMove" if i else "touchStart"
        browser.call("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y}])
    browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])


def press(browser: Browser, key: str, shift: bool = False) -> None:
    known = {"key": " ", "text": " ", "code": "Space"} if key == " " else {"key": key, "code": key}
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, modifiers=8 if shift else 0, **known)


def draw_by_keys(browser: Browser) -> None:
    browser.evaluate("board.focus()")
    for key, times in (("ArrowLeft", 2), (" ", 1), ("ArrowRight", 4), ("ArrowDown", 5), (" ", 1)):
        for _ in range(times):
            press(browser, key, shift=True)
    press(browser, "ArrowLeft")  # the pen is up


@pytest.mark.parametrize("draw", [draw_by_mouse, draw_by_finger, draw_by_keys])
def test_drawing_is_read_as_predict_would_read_it(draw: Any, open_page: Any) -> None:
    model = digits_model(12)
    browser = open_page(model)
    assert not browser.evaluate("result")
    draw(browser)
    # What is read is said when the pen has rested.
    until(
        browser,
        "!waiting && result && element('spoken').textContent"
        ".endsWith(written(Math.max(...result.scores)))",
    )
    data, image, spoken, lit = browser.evaluate(
        "[[...drawing().data], [...result.image], element('spoken').textContent,"
        " [...result.hidden[0]]]"
    )
    grey = np.array(data, np.uint8).reshape(400, 400)
    assert (grey < 128).sum() > 5000
    [digit] = prepare(grey, dark_ink=True).digits
    assert abs(np.array(image) - digit.image.ravel().astype(int)).max() <= 2
    scores = model.scores(digit.image.reshape(1, -1))[0]
    assert spoken == f"Reads {scores.argmax()}, {scores.max():.1%}".replace("%", " %")
    texts = browser.evaluate("bars.map((bar) => bar.value.textContent)")
    values = [float(text.removesuffix(" %")) for text in texts]
    assert values == pytest.approx((100 * scores).tolist(), abs=0.2)
    x = digit.image.ravel() / np.float32(255)
    affine = model.network.layers[0]
    assert lit == pytest.approx(np.maximum(x @ affine.weight + affine.bias, 0), abs=1e-3)
    browser.evaluate("element('undo').click()")
    until(browser, "result === null")


def test_keys_can_clear_and_undo(open_page: Any) -> None:
    browser = open_page(digits_model(12))
    for key in ("Backspace", "Escape"):
        draw_by_keys(browser)
        assert browser.evaluate("strokes.length") == 1
        press(browser, key)
        assert browser.evaluate("strokes.length") == 0


def test_hovering_a_hidden_unit_shows_its_weights(open_page: Any) -> None:
    model = digits_model(12, 5)
    browser = open_page(model, mistakes(1))
    browser.evaluate("document.querySelector('#gallery button').click()")
    until(browser, "result")
    for layer, units, side in ((0, 12, 28), (1, 5, 7)):
        canvas = f"grids[{layer}].canvas"
        browser.evaluate(f"{canvas}.scrollIntoView()")
        unit = browser.evaluate(f"grids[{layer}].across - 1")
        corner = browser.evaluate(
            "(({right, top}) => ({x: right - 5, y: top + 5}))"
            f"({canvas}.getBoundingClientRect())"
        )
        browser.call("Input.dispatchMouseEvent", type="mouseMoved", **corner)
        assert browser.evaluate("chosen") == [layer, unit]
        assert f"Unit {unit + 1} of {units}" in browser.evaluate("element('unit').textContent")
        pixels = browser.evaluate(
            "(() => { const {width, height} = element('weights');"
            "const copy = new OffscreenCanvas(width, height).getContext('2d');"
            "copy.drawImage(element('weights'), 0, 0);"
            "return [width, height, new Set(copy.getImageData(0, 0, width, height).data).size] })()"
        )
        assert pixels[0] % side == 0
        assert pixels[2] > 5


def test_gallery_shows_an_image_as_it_is(open_page: Any) -> None:
    model, shown = digits_model(12), mistakes(3)
    browser = open_page(model, shown)
    browser.evaluate("document.querySelectorAll('#gallery button')[2].click()")
    until(browser, "result")
    assert browser.evaluate("[...result.image]") == shown[2].image.tolist()
    read = model.scores(shown[2].image[None]).argmax()
    note = f"test image 2: {shown[2].label}, read as {read}"
    assert browser.evaluate("element('note').textContent") == note


@pytest.mark.parametrize("width", [360, 800, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_and_every_text_can_be_read(
    width: int, scheme: str, open_page: Any, browser: Browser
) -> None:
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800,
                 deviceScaleFactor=1, mobile=False)  # fmt: skip
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.call("Emulation.setEmulatedMedia", features=media)
    open_page(digits_model(100), mistakes())
    inner, outer = browser.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert inner <= outer
    # WCAG 2.1, contrast (minimum): 4.5 to 1
    for text, ground in browser.evaluate(
        "['--text', '--quiet', '--accent'].flatMap((name) => "
        "['--card'].map((under) => [colour(name), colour(under)]))"
    ):
        bright, dark = sorted((luminance(text), luminance(ground)), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5


def luminance(colour: str) -> float:
    """Return the relative luminance of #rrggbb, by WCAG 2.1."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_hostile_class_name_is_shown_as_text(open_page: Any) -> None:
    browser = open_page(replace(MODELS["relu"], class_names=(HOSTILE, "b", "c")))
    assert browser.evaluate("document.querySelector('#scores .label').textContent") == HOSTILE
    assert browser.evaluate("document.images.length") == 0
