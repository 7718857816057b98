"""The stages of a picture as PNG files."""

from __future__ import annotations

import io
from pathlib import Path

from nnctl.errors import SystemFailure, printable
from nnctl.files import as_system_failure, write_atomically
from nnctl.nn.functions import Array
from nnctl.pictures.preparation import Preparation, as_bytes

SOFTWARE = "Software", "nnctl"  # marks a PNG as nnctl's own, which it may replace


def save_stages(folder: Path, name: str, stages: Preparation) -> list[Path]:
    """Write the stages of the picture in file `name` to `folder`; return the files.

    They are `NAME-ink.png`, and for each digit `NAME-1-box.png` and `NAME-1-28x28.png`.

    Raises:
        SystemFailure: a file can't be written, or one that nnctl did not write is in the way.

    """
    stem = "stdin" if name == "-" else Path(name).name
    images = {f"{stem}-ink.png": as_bytes(stages.ink)}
    for number, digit in enumerate(stages.digits, 1):
        rows, columns = digit.image.shape
        if digit.box is not None:
            images[f"{stem}-{number}-box.png"] = as_bytes(digit.crop)
        images[f"{stem}-{number}-{rows}x{columns}.png"] = digit.image
    with as_system_failure("making", folder):
        folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / file for file in images]
    for path in paths:
        if path.exists() and not _is_ours(path):
            raise SystemFailure(
                f"{printable(path)}: is in the way, and nnctl did not write it; "
                "choose another folder"
            )
    for path, image in zip(paths, images.values(), strict=True):
        write_atomically(path, _png(image))
    return paths


def _png(image: Array) -> bytes:
    from PIL import Image, PngImagePlugin

    marks = PngImagePlugin.PngInfo()
    marks.add_text(*SOFTWARE)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", pnginfo=marks)
    return file.getvalue()


def _is_ours(path: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.info.get(SOFTWARE[0]) == SOFTWARE[1]
    except (OSError, SyntaxError, ValueError):
        return False
