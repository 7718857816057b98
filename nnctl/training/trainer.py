"""The training loop: a generator of events that knows nothing of files and terminals.

    trainer = Trainer(settings, data, threads=2)
    with closing(trainer):
        for event in trainer.events():
            ...  # record, draw, save `trainer.snapshot()`, or stop iterating

Between two events the caller may do what it likes; the epoch's clock stands still meanwhile.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from nnctl.config import Settings, build, with_counts
from nnctl.datasets import DataSet
from nnctl.datasets.batches import shuffled
from nnctl.errors import Diverged
from nnctl.nn.functions import Array
from nnctl.nn.losses import LOSSES
from nnctl.nn.schedules import SCHEDULES
from nnctl.training.engine import Engine, InitialWeights, split_data
from nnctl.training.events import (
    EpochFinished,
    EpochJudged,
    EpochsRestored,
    Event,
    Notice,
    RunFinished,
    RunStarted,
    Status,
    StepFinished,
    Verdict,
)
from nnctl.training.examination import against_divergence
from nnctl.training.overfitting import explain, guessing, judge

EXPLOSION = 100  # times the initial loss
EXPLOSION_STEPS = 100  # the running mean is over so many steps, or an epoch if that is shorter


@dataclass
class Progress:
    """How far a run has come: all that a resumed run needs beside arrays and settings."""

    epoch: int = 0  # finished epochs
    step: int = 0  # finished steps, over the whole run
    position: int = 0  # samples of the unfinished epoch that were learnt from
    loss_sum: float = 0.0  # over these samples
    initial_loss: float | None = None
    recent_losses: list[float] = field(default_factory=list)  # of the last steps
    history: list[EpochFinished] = field(default_factory=list)

    def copy(self) -> Progress:
        """Return a progress that does not change when this one does."""
        return replace(self, recent_losses=[*self.recent_losses], history=[*self.history])


@dataclass(frozen=True)
class Snapshot:
    """A trainer's whole state."""

    parameters: dict[str, Array]  # and statistics, by the network's names
    optimizer: dict[str, Array]  # vectors in the network's order
    best_losses: Array  # of each monitored sample at the best epoch; zeros before the first
    last_losses: Array  # at the last epoch
    progress: Progress


@dataclass(frozen=True, kw_only=True)
class PlannedLayer:
    """A layer of a `Plan`."""

    name: str  # POSITION.KIND
    output_shape: tuple[int, int]  # (batch, units)
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The fields of `nnctl train --check --json`: what training would do."""

    name: str
    dataset: str
    inputs: int  # numbers a sample
    layers: list[PlannedLayer]
    parameters: int
    train_samples: int
    validation_samples: int
    test_samples: int
    batch_size: int
    steps_per_epoch: int
    epochs: int
    threads: int


class Trainer:
    """Trains one network on one data set; made once, run once, then closed."""

    def __init__(
        self, settings: Settings, data: DataSet, threads: int | None = None, *, run_dir: str = ""
    ) -> None:
        """Lay everything out; `events` starts the work. Without `threads` the rule decides.

        The events name `run_dir` as the place where the run is kept. A data set without test
        images leaves the test figures None.

        Raises:
            ConfigError: the settings ask for more images than there are.

        """
        settings = with_counts(settings, len(data.train.labels))
        self.settings, self.data, self.run_dir = settings, data, run_dir
        training = settings.training
        self.split = split_data(settings, data)
        samples = len(self.split.train)
        self.batch_size = min(training.batch_size, samples)
        self.steps_per_epoch = math.ceil(samples / self.batch_size)
        self.steps = self.steps_per_epoch * training.epochs

        self.engine = Engine(settings, data, self.split, self.batch_size, threads)
        self.initial_weights: InitialWeights | None = None  # None: the seed gave them
        self.schedule = build(SCHEDULES, settings.schedule)
        self.monitored = settings.data.monitored  # on the test set nothing is ever chosen
        monitored = self.engine.measured(self.monitored)
        self._monitored_losses = monitored.losses
        classes = self.engine.network.widths[-1]
        self._guess = guessing(build(LOSSES, settings.loss), monitored.labels, classes)
        self._best_losses = np.zeros_like(self._monitored_losses)
        self.progress = Progress()
        self.best: EpochFinished | None = None  # lowest monitored loss, the earliest on a tie
        self._best_parameters: dict[str, Array] = {}
        self._learning_rate = 0.0  # of the last step
        # Since the caller took them last; None: training.log_steps is off.
        self.step_losses: list[float] | None = [] if training.log_steps else None
        self._divergence: Verdict | None = None  # on a run that diverged
        self.epoch_seconds = 0.0  # spent on the unfinished epoch
        self.seconds = 0.0  # spent on the run in earlier sessions
        self._since = time.perf_counter()

    # The run, as its caller sees it.

    def events(self, *, ending: bool = False) -> Iterator[Event]:
        """Train to the end, and report what happens; `ending`: the end is here, train no more.

        Raises:
            Diverged: a loss or weight is not finite, or the loss exploded.

        """
        settings, progress = self.settings, self.progress
        self._since = time.perf_counter()
        self.engine.start()
        yield RunStarted(
            run_dir=self.run_dir,
            name=settings.name,
            seed=settings.seed,
            dataset=settings.data.dataset,
            train_samples=len(self.split.train),
            validation_samples=len(self.split.validation),
            test_samples=len(self.data.test.labels),
            parameters=self.engine.network.size,
            threads=self.engine.threads,
            step=progress.step,
            batch_size=self.batch_size,
            steps_per_epoch=self.steps_per_epoch,
            epochs=settings.training.epochs,
            monitored=self.monitored,
        )
        if reason := self.engine.group.alone_because:
            yield Notice(f"{reason}; one process computes alone: slower, but the same bytes")
        if progress.history:
            yield EpochsRestored(tuple(progress.history))
        while not ending and progress.epoch < settings.training.epochs and not self.out_of_patience:
            yield from self._epoch()
        done = progress.epoch >= settings.training.epochs and not self.out_of_patience
        yield self.finish("completed" if done else "early_stopped")

    def begin_with(self, weights: InitialWeights) -> None:
        """Begin with `weights`, which are to be had, in the place of those of the seed."""
        assert weights.arrays is not None
        self.engine.network.load(weights.arrays)
        self.initial_weights = weights

    def close(self) -> None:
        """End the workers."""
        self.engine.close()

    @property
    def out_of_patience(self) -> bool:
        """True if the validation loss has not fallen for as long as `early_stopping` waits."""
        rule = self.settings.training.early_stopping
        if rule is None:
            return False
        best, stale = math.inf, 0
        for row in self.progress.history:
            assert row.validation_loss is not None  # early stopping needs a validation set
            if row.validation_loss < best - rule.min_delta:
                best, stale = row.validation_loss, 0
            else:
                stale += 1
        return stale >= rule.patience

    def finish(self, status: Status) -> RunFinished:
        """Return the run's last event; a run that came to its end is measured on the test set."""
        done = status in ("completed", "early_stopped")
        history = self.progress.history
        chosen = history[-1] if history and self.monitored == "test" else self.best
        overfitting = self._divergence or self.explained_verdict()
        if done:
            if self._best_parameters:  # which a validation set has chosen
                self.engine.network.load(self._best_parameters)
            for part in ("validation", "test"):
                self.engine.measure(part)
        test = self.engine.measured("test") if done and len(self.data.test.labels) else None
        return RunFinished(
            status=status,
            epochs=self.progress.epoch,
            best_epoch=chosen.epoch if chosen and self.monitored == "validation" else None,
            train_loss=chosen.train_loss if chosen else None,
            train_accuracy=chosen.train_accuracy if chosen else None,
            validation_loss=chosen.validation_loss if chosen else None,
            validation_accuracy=chosen.validation_accuracy if chosen else None,
            test_loss=test.loss if test else None,
            test_accuracy=test.accuracy if test else None,
            parameters=self.engine.network.size,
            seed=self.settings.seed,
            overfitting=overfitting,
            seconds=self.seconds + time.perf_counter() - self._since,
            run_dir=self.run_dir,
        )

    def plan(self) -> Plan:
        """Return what `events` would do."""
        network = self.engine.network
        return Plan(
            name=self.settings.name,
            dataset=self.settings.data.dataset,
            inputs=network.inputs,
            layers=[
                PlannedLayer(
                    name=network.layer_name(index),
                    output_shape=(self.batch_size, network.widths[index + 1]),
                    parameters=layer.parameter_count,
                )
                for index, layer in enumerate(network.layers)
            ],
            parameters=network.size,
            train_samples=len(self.split.train),
            validation_samples=len(self.split.validation),
            test_samples=len(self.data.test.labels),
            batch_size=self.batch_size,
            steps_per_epoch=self.steps_per_epoch,
            epochs=self.settings.training.epochs,
            threads=self.engine.threads,
        )

    def verdict(self) -> Verdict:
        """Return the verdict so far, its cause left open."""
        history = self.progress.history
        return judge(history, self._best_losses, self._monitored_losses, self._guess)

    def explained_verdict(self) -> Verdict:
        """Return the verdict with its cause: what is wrong with the weights that count."""
        verdict = self.verdict()
        lost = verdict.verdict == "not_learning" and verdict.since_epoch is not None
        last = lost or not self._best_parameters
        return explain(
            verdict,
            self.settings,
            self.data,
            self.progress.history,
            self.progress.initial_loss,
            self._copy_parameters() if last else self._best_parameters,
            len(self._monitored_losses),
            self.initial_weights,
        )

    # The state, as a checkpoint keeps it.

    def snapshot(self) -> Snapshot:
        """Return copies of all that `restore` needs to go on from here, bit for bit.

        Raises:
            Diverged: a weight or optimizer vector is not finite; such a state is never kept.

        """
        self._check_finite()
        return Snapshot(
            parameters=self._copy_parameters(),
            optimizer={name: vector.copy() for name, vector in self.engine.state.items()},
            best_losses=self._best_losses.copy(),
            last_losses=self._monitored_losses.copy(),
            progress=self.progress.copy(),
        )

    def restore(self, last: Snapshot, best: Snapshot | None) -> None:
        """Go on from `last`; `best` holds the weights of the best epoch so far, if there is one."""
        self.engine.network.load(last.parameters)
        for name, vector in self.engine.state.items():
            vector[...] = last.optimizer[name]
        self._best_losses[:] = last.best_losses
        self._monitored_losses[:] = last.last_losses
        self.progress = last.progress.copy()
        for row in self.progress.history:
            if self._beats_best(row):
                self.best = row
        if best is not None:
            self._best_parameters = best.parameters

    def _check_finite(self) -> None:
        """Raise `Diverged` if a weight or optimizer vector is not finite."""
        for name, array in (self.engine.network.named_arrays() | self.engine.state).items():
            if not np.isfinite(array).all():
                raise self._diverged(f"{name} is not finite")

    def _copy_parameters(self) -> dict[str, Array]:
        return {name: array.copy() for name, array in self.engine.network.named_arrays().items()}

    # One epoch.

    def _epoch(self) -> Iterator[Event]:
        progress, samples = self.progress, len(self.split.train)
        clock = time.perf_counter
        started = clock()
        epoch = progress.epoch + 1
        self.engine.epoch[:] = epoch
        self.engine.order[:] = shuffled(self.split.train, self.settings.seed, epoch)
        while progress.position < samples:
            start = progress.position
            stop = min(start + self.batch_size, samples)
            self._learning_rate = self.engine.optimizer.learning_rate * self.schedule.fraction(
                progress.step, self.steps_per_epoch, self.steps
            )
            progress.step += 1
            loss = self.engine.learn(start, stop, progress.step, self._learning_rate)
            if self.step_losses is not None:
                self.step_losses.append(loss)
            self._watch_for_divergence(loss)
            progress.loss_sum += loss * (stop - start)
            progress.position = stop
            if stop < samples:  # the caller's time does not count
                self.epoch_seconds += clock() - started
                batch_loss = progress.loss_sum / stop
                yield StepFinished(epoch, progress.step, batch_loss, self._learning_rate)
                started = clock()
        self.epoch_seconds += clock() - started
        yield self._finish_epoch()
        yield EpochJudged(self.verdict())

    def _watch_for_divergence(self, loss: float) -> None:
        """Note the loss of a step; raise `Diverged` if it is not finite, or has exploded."""
        progress, recent = self.progress, self.progress.recent_losses
        if not math.isfinite(loss):
            raise self._diverged(f"the batch loss is {loss}")
        if progress.initial_loss is None:
            progress.initial_loss = loss
        window = min(EXPLOSION_STEPS, self.steps_per_epoch)
        recent.append(loss)
        if len(recent) > window:
            recent.pop(0)
        mean = sum(recent) / len(recent)
        if len(recent) == window and mean > EXPLOSION * progress.initial_loss:
            raise self._diverged(
                f"the batch loss has grown from {progress.initial_loss:.4g} to {mean:.4g}"
            )

    def _finish_epoch(self) -> EpochFinished:
        self._check_finite()  # an epoch that can't be kept is not finished
        progress = self.progress
        started = time.perf_counter()
        figures: dict[str, float | None] = {}
        for part in ("train", "validation", "test"):
            loss = accuracy = None
            if part in ("train", self.monitored):
                result = self.engine.measure(part)
                loss, accuracy = result.loss, result.accuracy
                if not math.isfinite(loss):
                    raise self._diverged(f"the {part} loss is {loss}")
            figures |= {f"{part}_loss": loss, f"{part}_accuracy": accuracy}
        samples = progress.position
        row = EpochFinished(
            epoch=progress.epoch + 1,
            step=progress.step,
            **figures,  # type: ignore[arg-type]  # the train figures are numbers
            batch_loss=progress.loss_sum / samples,
            learning_rate=self._learning_rate,
            seconds=self.epoch_seconds,
            evaluation_seconds=time.perf_counter() - started,
            samples_per_second=samples / max(self.epoch_seconds, 1e-9),
        )
        progress.history.append(row)
        progress.epoch += 1
        progress.position, progress.loss_sum = 0, 0.0
        self.epoch_seconds = 0.0
        if self._beats_best(row):
            self.best = row
            self._best_losses[:] = self._monitored_losses
            if self.monitored == "validation":
                self._best_parameters = self._copy_parameters()
        return row

    def _beats_best(self, row: EpochFinished) -> bool:
        return self.best is None or row.monitored_loss < self.best.monitored_loss

    def _diverged(self, what: str) -> Diverged:
        step = self.progress.step
        epoch = (step - 1) // self.steps_per_epoch + 1
        where = f"epoch {epoch}, step {step}, learning rate {self._learning_rate:g}"
        found, remedy = against_divergence(self.settings, self.data, self.initial_weights)
        self._divergence = replace(self.verdict(), remedy=remedy)
        why = f"try {remedy}"
        if found is not None:
            self._divergence = replace(self._divergence, cause=found.kind, message=found.message)
            why = f"{found.message}\n{remedy}"
        return Diverged(f"training diverged: {what} ({where})\n{why}")
