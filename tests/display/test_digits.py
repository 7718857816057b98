"""Images as characters."""

import io

import numpy as np
import pytest
from rich.console import Console

from nnctl.display.digits import Gallery
from nnctl.nn.functions import Array


class Ascii(Console):
    @property
    def encoding(self) -> str:
        return "ascii"


def draw(images: Array, width: int, *captions: str, kind: type[Console] = Console) -> list[str]:
    console = kind(file=io.StringIO(), width=width)
    with console.capture() as captured:
        console.print(Gallery(images, captions))
    return captured.get().splitlines()


def bytes_of(*rows: list[int]) -> Array:
    return np.array([rows], np.uint8)


def test_digits_show_two_pixels_in_each_character() -> None:
    image = bytes_of([0, 255, 255, 0, 128], [0, 255, 0, 255, 128])
    assert draw(image, 20, "")[0].startswith(" █▀▄▒")


def test_digits_in_ascii_hold_nothing_else() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    lines = draw(image, 40, "7", kind=Ascii)
    assert "".join(lines).isascii()
    assert len(set("".join(lines))) > 3  # it has shades


def test_digits_odd_last_row_stands_above_a_dark_one() -> None:
    assert draw(bytes_of([255]), 20, "")[0].startswith("▀")


def test_digits_stand_side_by_side_as_the_width_allows() -> None:
    images = np.full((3, 28, 28), 255, np.uint8)
    heights = [len(draw(images, width, "a", "b", "c")) for width in (28, 58, 90)]
    assert heights == [3 * 15, 2 * 15, 15]


def test_digits_have_their_captions_below_them() -> None:
    images = np.full((2, 28, 28), 255, np.uint8)
    caption = draw(images, 80, "first", "second")[-1]
    assert caption.index("first") < 28 < caption.index("second")


@pytest.mark.parametrize("width", [1, 5, 20, 27])
def test_digits_shrink_to_a_narrow_terminal(width: int) -> None:
    images = np.full((1, 28, 28), 255, np.uint8)
    lines = draw(images, width, "")
    assert max(map(len, lines)) <= width
    assert lines[0][0] in "█▀"


def test_digits_long_caption_wraps_below_its_image() -> None:
    images = np.zeros((1, 28, 28), np.uint8)
    lines = draw(images, 80, "word " * 12)
    assert len(lines) > 15
    assert max(len(line.rstrip()) for line in lines) <= 28


def test_digits_in_colour_show_the_pixels_own_greys() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=40)
    with console.capture() as captured:
        console.print(Gallery(bytes_of([10, 200], [30, 40]), ["x"]))
    assert "38;2;10;10;10;48;2;30;30;30m▀" in captured.get()
    assert "38;2;200;200;200;48;2;40;40;40m▀" in captured.get()


def test_digits_do_without_colour_where_it_is_refused() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, no_color=True, width=40)
    with console.capture() as captured:
        console.print(Gallery(bytes_of([255], [255]), ["x"]))
    assert captured.get().startswith("█")
