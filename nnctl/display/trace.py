"""What `nnctl trace` shows: each layer's figures, forward and back, what looks wrong, one digit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.columns import Columns
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from nnctl.display.charts import sparkline
from nnctl.display.digits import Picture
from nnctl.display.evaluation import class_label
from nnctl.display.tables import NOTHING, Rows, figures, fits
from nnctl.inspection.diagnosis import Finding
from nnctl.inspection.trace import LayerTrace, SampleTrace, Trace
from nnctl.nn.functions import Array
from nnctl.nn.losses import Loss, SoftmaxWithLoss

FORWARD = ("layer", "output", "parameters", "mean", "std", "zeros", "saturated", "dead", "values")
BACKWARD = ("layer", "|dL/dy|", "|dL/dw|", "update/weight")
LARGE = 1e6  # from here on, figures of one digit's outputs are written with an exponent


@dataclass(frozen=True)
class TraceView:
    """A mini-batch's way through a network."""

    title: str
    trace: Trace
    loss: Loss

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the loss, then the layers on both ways."""
        trace = self.trace
        yield Text(f"{self.title}\n{_loss_line(trace, self.loss, trace.classes)}\n")
        yield Text("Forward: what each layer puts out (y), over batch and units", style="bold")
        yield Rows(FORWARD, [_forward(layer, options.ascii_only) for layer in trace.layers])
        yield Text("\nBackward, from the loss on: the sizes of the gradients", style="bold")
        yield Rows(BACKWARD, [_backward(layer) for layer in reversed(trace.layers)])
        yield Text(
            "\nvalues: how often each occurs, from the smallest to the largest\n"
            "saturated: where the function is almost flat; dead: off for the whole batch\n"
            "|dL/dy|: of the gradient at the layer's output, |dL/dw|: at its parameters\n"
            "update/weight: how much of the weight one step at learning rate "
            f"{trace.learning_rate:g} changes",
            style="dim",
        )


@dataclass(frozen=True)
class Findings:
    """What looks wrong, with a remedy each."""

    findings: Sequence[Finding]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield two sentences for each finding."""
        yield Text()
        if not self.findings:
            yield Text("Nothing looks wrong.")
        for finding in self.findings:
            yield Text(f"{finding.message[0].upper()}{finding.message[1:]}.", style="bold")
            yield Text(f"Remedy: {finding.remedy}.")


@dataclass(frozen=True)
class SampleView:
    """One sample: its image, and what the network and the loss make of it, class by class."""

    title: str
    image: Array
    sample: SampleTrace
    loss: Loss
    class_names: Sequence[str] | None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the image beside the figures if there is room, and what the figures mean."""
        sample = self.sample
        label, read = (class_label(n, self.class_names) for n in (sample.label, sample.prediction))
        mark = "right" if sample.label == sample.prediction else "wrong"
        yield Text(f"\n{self.title}: {label}, read as {read}, {mark}", style="bold")
        of_label = sample.probabilities and sample.probabilities[sample.label]
        way = f"= -ln {of_label:.4g} = " if of_label else ""  # none if it is too small for a number
        yield Text(f"{_loss_line(sample, self.loss, way=way)}\n")
        table = self._table(self.class_names, gap=2)
        if not fits(table, console, options):
            table = self._table(None, gap=1)
        yield Columns([Picture(self.image), table], padding=(0, 4))
        yield Text(f"\n{self._meaning()}", style="dim")

    def _table(self, class_names: Sequence[str] | None, gap: int) -> Table:
        sample = self.sample
        columns = {"class": [str(n) for n in range(len(sample.outputs))]}
        if class_names:
            columns["class"] = [f"{n} {name}" for n, name in enumerate(class_names)]
        columns["logit" if sample.probabilities else "output"] = _column(sample.outputs, ".3f")
        if sample.probabilities:
            columns["softmax"] = _column(sample.probabilities, ".4f")
        columns["target"] = _column(sample.target, ".4g")
        columns["gradient"] = _column(sample.gradient, "+.4f")
        return figures(list(columns), zip(*columns.values(), strict=True), gap)

    def _meaning(self) -> str:
        if not isinstance(self.loss, SoftmaxWithLoss):
            return f"gradient at the outputs = 2 (output - target) / {len(self.sample.outputs)}"
        lines = ["gradient at the logits = softmax - target"]
        if smoothing := self.loss.label_smoothing:
            off, on = min(self.sample.target), max(self.sample.target)
            lines.append(
                f"label smoothing {smoothing:g} makes the target {on:.4g} instead of 1 at the "
                f"label, {off:.4g} instead of 0 elsewhere"
            )
        return "\n".join(lines)


def _loss_line(
    traced: Trace | SampleTrace, loss: Loss, classes: int | None = None, way: str = ""
) -> str:
    """Return the loss in words, with the `way` to it; with `classes` also what guessing gives."""
    if not isinstance(loss, SoftmaxWithLoss):
        return f"loss {traced.loss:.4g} (mean squared error)"
    parts = [f"loss {way}{traced.loss:.4g} nats"]
    if loss.label_smoothing:
        parts.append(f"{traced.batch_loss:.4g} with label smoothing, which training minimises")
    if classes:
        parts.append(f"guessing evenly gives ln({classes}) = {math.log(classes):.4g}")
    return "; ".join(parts)


def _column(values: Sequence[float], form: str) -> list[str]:
    if max(map(abs, values)) >= LARGE:
        form = form.replace("f", "e")
    return [f"{value + 0.0:{form}}" for value in values]  # + 0.0 makes -0 a 0


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value + 0.0:.3g}"


def _share(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1%}"


def _forward(layer: LayerTrace, ascii_only: bool) -> list[str]:
    """Return the row below `FORWARD`."""
    samples, units = layer.output_shape
    return [
        layer.name,
        f"{samples}x{units}",
        f"{layer.parameters:,}" if layer.parameters else NOTHING,
        _number(layer.activation_mean),
        _number(layer.activation_std),
        _share(layer.zero_fraction),
        _share(layer.saturated_fraction),
        NOTHING if layer.dead_units is None else str(layer.dead_units),
        sparkline(layer.activation_histogram, ascii_only),
    ]


def _backward(layer: LayerTrace) -> list[str]:
    """Return the row below `BACKWARD`."""
    figures = layer.activation_gradient_norm, layer.gradient_norm, layer.update_ratio
    return [layer.name, *map(_number, figures)]
