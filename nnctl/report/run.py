"""What the page says of one run."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np

from nnctl.config import to_yaml
from nnctl.display.curves import accuracy_chart, loss_chart, overfitting_chart
from nnctl.display.evaluation import (
    CLASS_COLUMNS,
    caption,
    class_cells,
    class_label,
    heats,
    often_confused,
)
from nnctl.display.markup import Markup, element, joined
from nnctl.display.png import data_uri, png
from nnctl.display.summary import duration
from nnctl.display.svg import figure
from nnctl.display.tables import NOTHING
from nnctl.display.verdict import describe_end
from nnctl.display.weights import tiled, weights_png
from nnctl.inspection.weights import reach, unit_images
from nnctl.nn.network import Network
from nnctl.report.contents import RunContents
from nnctl.report.pieces import HEATS, pairs, section, table
from nnctl.training.mistakes import Mistake

UNITS = 100  # of the first layer are shown
ACROSS = 10  # of them in a row


def run_article(run: RunContents, title: str, anchor: str) -> Markup:
    """Return all that the page says of one run."""
    return element(
        "article",
        element("header", element("h1", title), element("p", _lead(run))),
        _tiles(run),
        *_curves(run),
        section("Network", _layers(run)),
        _classes(run),
        _confusion(run),
        _mistakes(run),
        _weights(run),
        section("Config", element("pre", to_yaml(run.record.settings).rstrip("\n"))),
        section("What ran where", _facts(run), is_wide=True),
        id=anchor,
    )


def _lead(run: RunContents) -> str:
    record = run.record
    status = record.summary.status if record.summary else "unfinished"
    state = status.replace("early_stopped", "stopped early")
    epochs = len(record.history)
    return (
        f"{_network_in_words(run.network)} on {record.settings.data.dataset}; {state} after "
        f"{epochs} {'epoch' if epochs == 1 else 'epochs'}"
    )


def _network_in_words(network: Network) -> str:
    names = [network.layer_name(index).split(".")[1] for index in range(len(network.layers))]
    pairs = zip(names, network.widths[1:], strict=True)
    layers = (f"{name} {units}" if name == "affine" else name for name, units in pairs)
    return f"{network.widths[0]:,} pixels, {', '.join(layers)}"


def _tiles(run: RunContents) -> Markup:
    """Return the figures that one looks for first; `value` holds all of their digits."""
    found, summary = run.evaluation, run.record.summary
    low, high = found.accuracy_interval
    of = f"{found.samples:,} {found.split} images, {found.checkpoint} checkpoint"
    tiles = [
        ("accuracy", _data(found.accuracy, f"{found.accuracy:.2%}"), f"of {of}"),
        (
            "95% interval",
            joined(_data(low, f"{low:.2%}"), " to ", _data(high, f"{high:.2%}")),
            "Wilson's, of the accuracy",
        ),
        ("loss", _data(found.loss, f"{found.loss:.4f}"), "mean, without label smoothing"),
        ("parameters", _data(run.network.size, f"{run.network.size:,}"), "weights and biases"),
    ]
    if summary is not None:
        best = f"epoch {summary.best_epoch}" if summary.best_epoch else NOTHING
        tiles.append(("best", element("span", best), "by the validation loss"))
        tiles.append(("time", element("span", duration(summary.seconds)), "of training"))
    return element(
        "dl",
        *(
            element("div", element("dt", name), element("dd", value), element("dd", note))
            for name, value, note in tiles
        ),
        class_="tiles",
    )


def _data(value: float, shown: str) -> Markup:
    return element("data", shown, value=repr(value))


def _curves(run: RunContents) -> list[Markup]:
    """Return the curves, and the verdict that rests on them."""
    rows = [asdict(row) for row in run.record.history]
    if not rows:
        return []
    charts = [loss_chart(rows), accuracy_chart(rows), overfitting_chart(rows)]
    drawn = element("div", *map(figure, charts), class_="charts")
    curves = section("Curves", drawn, is_wide=True)
    if run.record.summary is None:
        return [curves]
    summary = asdict(run.record.summary)
    said = describe_end(summary, run.record.monitored).split("\n")
    verdict = summary["overfitting"]
    evidence = verdict["evidence"]
    facts = {
        "best epoch": evidence["best_epoch"],
        "loss at the end above its best by": evidence["loss_rise"],
        "standard error of that": evidence["standard_error"],
        "gap: validation - training loss at the end": verdict["gap"],
    }
    shown = {key: NOTHING if fact is None else f"{fact:.4g}" for key, fact in facts.items()}
    return [
        curves,
        section("Verdict", *(element("p", line) for line in said), pairs(shown)),
    ]


def _layers(run: RunContents) -> Markup:
    network = run.network
    rows = [["input", "", str(network.widths[0]), ""]]
    for index, layer in enumerate(network.layers):
        options = {**run.settings.network[index].options}
        options.pop("units", None)  # they are its outputs
        rows.append(
            [
                network.layer_name(index),
                ", ".join(f"{key} {_option(value)}" for key, value in options.items()),
                str(network.widths[index + 1]),
                f"{layer.parameter_count:,}" if layer.parameter_count else "",
            ]
        )
    rows.append(["total", "", "", f"{network.size:,}"])
    return table(("layer", "options", "outputs", "parameters"), rows, text_columns=2)


def _option(value: Any) -> str:
    """Return an option's value; a choice of a kind as its name and its own options."""
    if not isinstance(value, dict):
        return str(value)
    return " ".join(str(part) for pair in value.items() for part in pair if part != "kind")


def _classes(run: RunContents) -> Markup:
    cells = class_cells(run.evaluation.per_class, run.class_names)
    return section("Classes", table(CLASS_COLUMNS, cells))


def _confusion(run: RunContents) -> Markup:
    confusion = np.array(run.evaluation.confusion_matrix)
    worst, shades = heats(confusion)
    labels = [class_label(label, run.class_names) for label in range(len(confusion))]
    head = element("tr", element("td"), *(element("th", label, scope="col") for label in labels))
    rows = []
    for true, label in enumerate(labels):
        cells = [
            element(
                "td",
                f"{count:,}" if count else "\N{MIDDLE DOT}",
                class_=_shade(shades[true, predicted], true == predicted, count),
                title=f"{label} read as {labels[predicted]}: {count:,}",
            )
            for predicted, count in enumerate(confusion[true].tolist())
        ]
        rows.append(element("tr", element("th", label, scope="row"), *cells))
    table = element("table", element("thead", head), element("tbody", *rows), class_="confusion")
    notes = ["Rows are true classes, columns predictions."]
    if worst:
        notes.append(f"The strongest red is {worst:.1%} of a row.")
    if often := often_confused(confusion, run.class_names):
        notes.append(f"Most often confused: {often}.")
    note = element("p", " ".join(notes), class_="quiet")
    return section("Confusion matrix", element("div", table, class_="wide"), note)


def _shade(heat: float, right: bool, count: int) -> str | None:
    if not count:
        return "zero"
    return f"{'right' if right else 'wrong'}-{max(1, round(heat * HEATS))}"


def _mistakes(run: RunContents) -> Markup:
    shown, confusion = run.mistakes, np.array(run.evaluation.confusion_matrix)
    wrong = int(confusion.sum() - confusion.trace())
    if not shown:
        nothing = element("p", "None: every image was read right.")
        return section("Mistakes", nothing, is_wide=True)
    figures = [_mistake(mistake, run) for mistake in shown]
    note = (
        f"{len(shown)} of {wrong:,}, the most confident first: what the image is, and the "
        "likeliest classes."
    )
    gallery = element("div", *figures, class_="gallery")
    return section("Mistakes", element("p", note, class_="quiet"), gallery, is_wide=True)


def _mistake(mistake: Mistake, run: RunContents) -> Markup:
    is_probability = run.loss.has_probabilities
    head, *scores = caption(mistake, run.class_names, is_probability).split("\n")
    rows, columns = run.image_shape
    picture = element(
        "img",
        src=data_uri(png(mistake.image.reshape(rows, columns))),
        alt=head,
        width=columns,
        height=rows,
    )
    lines = (element("span", " ".join(line.split())) for line in scores)
    return element("figure", picture, element("figcaption", element("b", head), *lines))


def _weights(run: RunContents) -> Markup:
    images = unit_images(run.network, run.image_shape)
    if images is None:
        return Markup("")
    shown = images[:UNITS]
    largest = reach(images)
    sheet = tiled(shown, min(ACROSS, len(shown)))
    name = "the first layer's weights"
    picture = element(
        "img",
        src=data_uri(weights_png(sheet, largest)),
        alt=name,
        width=sheet.shape[1],
        height=sheet.shape[0],
        class_="weights",
    )
    units = f"{len(shown)} of {len(images):,} units" if len(images) > UNITS else "Each unit"
    note = (
        f"{units}: its weight for each pixel. Blue is above zero, orange below; the strongest "
        f"colours are {largest:.3g} and beyond."
    )
    return section("First-layer weights", element("p", note, class_="quiet"), picture)


def _facts(run: RunContents) -> Markup:
    manifest, record = run.manifest, run.record
    versions = manifest.get("versions")
    facts = {
        "started": _time(record.manifest.started),
        "ended": _time_of(manifest.get("ended")),
        "command": manifest.get("command"),
        "seed": record.settings.seed,
        "threads": record.manifest.threads,
        "BLAS": manifest.get("blas"),
        **(versions if isinstance(versions, dict) else {}),
        **{f"SHA-256 of {file}": sha for file, sha in record.manifest.data_sha256.items()},
    }
    return pairs({key: fact for key, fact in facts.items() if fact not in (None, "")})


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _time_of(text: object) -> str | None:
    try:
        return _time(datetime.fromisoformat(str(text))) if text else None
    except (ValueError, OverflowError):
        return None
