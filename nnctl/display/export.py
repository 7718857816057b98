"""What a person sees of an exported network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.filesize import decimal

from nnctl.display.output import console
from nnctl.errors import printable


def print_export(report: Mapping[str, Any], summary: str, scores: str) -> None:
    """Print the fields of `nnctl export --json` for a person; `scores` are what it gives."""
    out = console()
    out.print(
        f"{printable(report['output'])}: {decimal(report['bytes'])}, "
        f"{report['parameters']:,} parameters\n{summary}"
    )
    if check := report["check"]:
        same = "the same" if not check["different"] else f"{check['different']:,} other"
        out.print(
            f"checked on {check['samples']:,} test images: {same} predictions, "
            f"{scores} within {check['max_difference']:.1g}"
        )
