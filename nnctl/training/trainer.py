"""The training loop: a generator of events that knows nothing of files and terminals.

    trainer = Trainer(settings, data, threads=2)
    with closing(trainer):
        for event in trainer.events():
            ...  # record, draw, save `trainer.snapshot()`, or stop iterating

Between two events the caller may do what it likes; the clock stands still meanwhile.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from nnctl.config import Settings, build
from nnctl.datasets import DataSet, Samples
from nnctl.datasets.batches import Gatherer, shuffled, split
from nnctl.errors import ConfigError, Diverged
from nnctl.nn.functions import Array
from nnctl.nn.layers import LAYERS, Dropout
from nnctl.nn.losses import LOSSES
from nnctl.nn.network import Network
from nnctl.nn.optimizers import OPTIMIZERS
from nnctl.nn.randomness import Concern, generator
from nnctl.nn.schedules import SCHEDULES
from nnctl.training.evaluation import Evaluation, chunks, evaluate_chunk
from nnctl.training.events import EpochFinished, Event, RunFinished, RunStarted, StepFinished
from nnctl.training.overfitting import judge
from nnctl.training.workers import Team, share

TRAIN_CURVE_SAMPLES = 10_000  # at most so many training samples are re-evaluated each epoch
EXPLOSION = 100  # times the initial loss
EXPLOSION_STEPS = 100  # the running mean is over so many steps, or an epoch if that is shorter

TIMINGS = ("seconds", "evaluation_seconds", "samples_per_second")

STEP, EVALUATE = range(2)  # the team's tasks


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

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, without anything a clock had a hand in."""
        plain = dict(vars(self))
        plain["history"] = [
            {key: value for key, value in asdict(row).items() if key not in TIMINGS}
            for row in self.history
        ]
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Progress:
        """Return the progress that `to_dict` made plain; its history's timings are 0.

        Raises:
            ValueError, KeyError, TypeError: `plain` is something else.

        """
        import msgspec

        untimed = dict.fromkeys(TIMINGS, 0.0)
        history = [{**row, **untimed} for row in plain["history"]]
        return msgspec.convert({**plain, "history": history}, cls)


@dataclass(frozen=True)
class Snapshot:
    """A trainer's whole state: arrays by name, and the progress as plain values."""

    parameters: dict[str, Array]  # and statistics, by the network's names
    optimizer: dict[str, Array]  # vectors in the network's order
    best_losses: Array  # of each watched sample at the best epoch; zeros before the first
    last_losses: Array  # at the last epoch
    progress: dict[str, Any]


def build_network(settings: Settings, inputs: int, **options: Any) -> Network:
    """Return the network that `settings` describe, all parameters zero."""
    return Network([build(LAYERS, choice) for choice in settings.network], inputs, **options)


class Trainer:
    """Trains one network on one data set; made once, run once, then closed."""

    def __init__(self, settings: Settings, data: DataSet, threads: int = 1) -> None:
        """Lay everything out; `events` starts the work.

        Raises:
            ConfigError: the settings ask for more images than there are.

        """
        self.settings, self.data, self.threads = settings, data, threads
        training = settings.training
        try:
            self.split = split(
                data.train.labels,
                validation=settings.data.validation,
                train_size=settings.data.train_size,
                seed=settings.data.split_seed,
            )
        except ValueError as error:
            raise ConfigError(
                f"data: {error}\ndata.validation is drawn first, data.train_size from the rest"
            ) from None
        samples = len(self.split.train)
        if not samples:
            raise ConfigError("data.validation leaves no training images")
        self.batch_size = min(training.batch_size, samples)
        self.steps_per_epoch = math.ceil(samples / self.batch_size)
        self.steps = self.steps_per_epoch * training.epochs

        inputs = data.train.images.shape[1]
        self.team = Team(1)
        self.network = build_network(settings, inputs)
        if threads > 1 and not self.network.couples_samples:
            self.team = Team(threads)
            self.network = build_network(settings, inputs, allocate=self.team.allocate)
        self.network.initialize(settings.seed)
        self.loss = build(LOSSES, settings.loss)
        self.optimizer = build(OPTIMIZERS, settings.optimizer)
        self.schedule = build(SCHEDULES, settings.schedule)

        size, allocate = self.network.size, self.team.allocate
        self._gradients = [self.network.gradients]  # of each member's share of the batch
        self._gradients += [allocate(size, np.float32) for _ in range(1, self.team.size)]
        self._state = {name: allocate(size, np.float32) for name in self.optimizer.state_names}
        self._losses = allocate(self.team.size, np.float64)  # each member's share of the loss
        self._squares = allocate(self.team.size, np.float64)  # and of the squared gradient norm
        self._order = allocate(samples, np.intp)
        self._labels = data.train.labels.astype(np.intp)
        self._gather = Gatherer(data.train.images)

        # What is measured after each epoch; without a validation set the test set is watched.
        self.watched = "validation" if len(self.split.validation) else "test"
        curve = self.split.train
        if samples > TRAIN_CURVE_SAMPLES:
            rng = generator(settings.data.split_seed, Concern.SAMPLE)
            curve = np.sort(rng.choice(curve, TRAIN_CURVE_SAMPLES, replace=False))
        self._measured = [
            self._measure(data.train, curve),
            self._measure(data.train, self.split.validation),
            self._measure(data.test, np.arange(len(data.test.labels))),
        ]
        self.train, self.validation, self.test = (result for *_, result in self._measured)

        self.progress = Progress()
        self.best: EpochFinished | None = None  # lowest watched loss, the earliest on a tie
        result = self.validation if self.watched == "validation" else self.test
        self._watched_losses = result.losses
        self._best_losses = np.zeros_like(result.losses)
        self._best_parameters: dict[str, Array] = {}
        self.epoch_seconds = 0.0  # spent on the unfinished epoch
        self.seconds = 0.0  # spent on the run, in earlier sessions too
        self._since = time.perf_counter()

    def _measure(self, samples: Samples, indices: Array) -> tuple[Gatherer, Array, Evaluation]:
        labels = samples.labels[indices].astype(np.intp)
        return Gatherer(samples.images), indices, Evaluation.empty(labels, self.team.allocate)

    # The run, as its caller sees it.

    def events(self) -> Iterator[Event]:
        """Train to the end, telling what happens.

        Raises:
            Diverged: a loss or weight is not finite, or the loss exploded.

        """
        settings, progress = self.settings, self.progress
        self._since = time.perf_counter()
        self.team.start([self._step, self._evaluate])
        yield RunStarted(
            run_dir="",
            name=settings.name,
            seed=settings.seed,
            dataset=settings.data.dataset,
            train_samples=len(self.split.train),
            validation_samples=len(self.split.validation),
            test_samples=len(self.test.labels),
            parameters=self.network.size,
            threads=self.threads,
            step=progress.step,
        )
        while progress.epoch < settings.training.epochs and not self.out_of_patience:
            yield from self._epoch()
        yield self.finish("early_stopped" if self.out_of_patience else "completed")

    def close(self) -> None:
        """End the workers."""
        self.team.close()

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

    def finish(self, status: str) -> RunFinished:
        """Return the run's last event; a run that came to its end is measured on the test set."""
        done = status in ("completed", "early_stopped")
        history = self.progress.history
        chosen = history[-1] if history and self.watched == "test" else self.best
        if done:
            self._load_best()
            self._run_evaluation(2)
        verdict = judge(history, self._best_losses, self._watched_losses)
        return RunFinished(
            status=status,
            epochs=self.progress.epoch,
            best_epoch=chosen.epoch if chosen and self.watched == "validation" else None,
            train_loss=chosen and chosen.train_loss,
            train_accuracy=chosen and chosen.train_accuracy,
            validation_loss=chosen and chosen.validation_loss,
            validation_accuracy=chosen and chosen.validation_accuracy,
            test_loss=self.test.loss if done else None,
            test_accuracy=self.test.accuracy if done else None,
            parameters=self.network.size,
            seed=self.settings.seed,
            overfitting=verdict,
            seconds=self.seconds + time.perf_counter() - self._since,
            run_dir="",
        )

    # The state, as a checkpoint keeps it.

    def snapshot(self) -> Snapshot:
        """Return copies of all that `restore` needs to go on from here, bit for bit.

        Raises:
            Diverged: a weight is not finite; such a state is never kept.

        """
        self.team.settle()
        if not np.isfinite(self.network.parameters).all():
            raise self._diverged("a weight is not finite")
        return Snapshot(
            parameters=self._copy_parameters(),
            optimizer={name: vector.copy() for name, vector in self._state.items()},
            best_losses=self._best_losses.copy(),
            last_losses=self._watched_losses.copy(),
            progress=self.progress.to_dict(),
        )

    def restore(self, last: Snapshot, best: Snapshot | None) -> None:
        """Go on from `last`; `best` holds the weights of the best epoch so far, if there is one."""
        for name, array in self.network.named_arrays().items():
            array[...] = last.parameters[name]
        for name, vector in self._state.items():
            vector[...] = last.optimizer[name]
        self._best_losses[:] = last.best_losses
        self._watched_losses[:] = last.last_losses
        self.progress = Progress.from_dict(last.progress)
        for row in self.progress.history:
            if self._beats_best(row):
                self.best = row
        if best is not None:
            self._best_parameters = best.parameters

    def _copy_parameters(self) -> dict[str, Array]:
        return {name: array.copy() for name, array in self.network.named_arrays().items()}

    def _load_best(self) -> None:
        """Put the best weights back, where a validation set has chosen some."""
        for name, array in self.network.named_arrays().items():
            if name in self._best_parameters:
                array[...] = self._best_parameters[name]

    # One epoch.

    def _epoch(self) -> Iterator[Event]:
        progress, samples = self.progress, len(self.split.train)
        clock = time.perf_counter
        started = clock()
        epoch = progress.epoch + 1
        self._order[:] = shuffled(self.split.train, self.settings.seed, epoch)
        learning_rate = 0.0
        window = min(EXPLOSION_STEPS, self.steps_per_epoch)
        while progress.position < samples:
            start = progress.position
            stop = min(start + self.batch_size, samples)
            learning_rate = self.optimizer.learning_rate * self.schedule.fraction(
                progress.step, self.steps_per_epoch, self.steps
            )
            progress.step += 1
            self.team.run(STEP, start, stop, progress.step, learning_rate)
            loss = float(self._losses.sum())
            if not math.isfinite(loss):
                raise self._diverged(f"the batch loss is {loss}", learning_rate)
            if progress.initial_loss is None:
                progress.initial_loss = loss
            recent = progress.recent_losses
            recent.append(loss)
            if len(recent) > window:
                recent.pop(0)
            mean = sum(recent) / len(recent)
            if len(recent) == window and mean > EXPLOSION * progress.initial_loss:
                raise self._diverged(
                    f"the batch loss has grown from {progress.initial_loss:.4g} to {mean:.4g}",
                    learning_rate,
                )
            progress.loss_sum += loss * (stop - start)
            progress.position = stop
            if stop < samples:  # the caller's time does not count
                self.epoch_seconds += clock() - started
                batch_loss = progress.loss_sum / stop
                yield StepFinished(epoch, progress.step, batch_loss, learning_rate)
                started = clock()
        self.team.settle()
        self.epoch_seconds += clock() - started
        yield self._finish_epoch(learning_rate)

    def _finish_epoch(self, learning_rate: float) -> EpochFinished:
        progress = self.progress
        started = time.perf_counter()
        figures: dict[str, float | None] = {}
        for index, name in enumerate(("train", "validation", "test")):
            loss = accuracy = None
            if name in ("train", self.watched):
                self._run_evaluation(index)
                result = self._measured[index][2]
                loss, accuracy = result.loss, result.accuracy
                if not math.isfinite(loss):
                    raise self._diverged(f"the {name} loss is {loss}", learning_rate)
            figures |= {f"{name}_loss": loss, f"{name}_accuracy": accuracy}
        samples = progress.position
        row = EpochFinished(
            epoch=progress.epoch + 1,
            step=progress.step,
            **figures,  # type: ignore[arg-type]  # the train figures are numbers
            batch_loss=progress.loss_sum / samples,
            learning_rate=learning_rate,
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
            self._best_losses[:] = self._watched_losses
            if self.watched == "validation":
                self._best_parameters = self._copy_parameters()
        return row

    def _beats_best(self, row: EpochFinished) -> bool:
        return self.best is None or self._watched_loss(row) < self._watched_loss(self.best)

    def _watched_loss(self, row: EpochFinished) -> float:
        loss = row.test_loss if row.validation_loss is None else row.validation_loss
        assert loss is not None
        return loss

    def _run_evaluation(self, index: int) -> None:
        self.team.run(EVALUATE, index)
        self.team.settle()

    def _diverged(self, what: str, learning_rate: float | None = None) -> Diverged:
        where = f"epoch {self.progress.epoch + 1}, step {self.progress.step}"
        if learning_rate is not None:
            where += f", learning rate {learning_rate:g}"
        return Diverged(f"training diverged: {what} ({where})\ntry a smaller learning rate")

    # What every member of the team does at the same time, each on its share.

    def _step(self, start: float, stop: float, step: float, learning_rate: float) -> None:
        """Learn from one mini-batch: forward, loss, backward, update."""
        rank, size = self.team.rank, self.team.size
        network, start, batch = self.network, int(start), int(stop - start)
        mine = share(batch, rank, size)
        gradients = self._gradients[rank]
        if network.gradients is not gradients:  # a worker's first step
            network.bind(network.parameters, gradients)
        with np.errstate(all="ignore"):  # divergence is found in the loss
            if mine.start < mine.stop:
                indices = self._order[start + mine.start : start + mine.stop]
                weight = len(indices) / batch
                self._set_dropout(int(step))
                outputs = network.forward(self._gather(indices), training=True)
                self._losses[rank] = weight * self.loss.forward(outputs, self._labels[indices])
                network.backward(self.loss.backward(weight))
            else:
                self._losses[rank] = 0
                gradients[...] = 0
            self.team.barrier()
            self._update(int(step), learning_rate)

    def _update(self, step: int, learning_rate: float) -> None:
        """Add the members' gradients up and update the weights: each member its part of both."""
        rank, size = self.team.rank, self.team.size
        mine = share(self.network.size, rank, size)
        w, dw = self.network.parameters[mine], self._gradients[rank][mine]
        for other in range(size):
            if other != rank:
                dw += self._gradients[other][mine]
        if clip_norm := self.settings.training.clip_norm:
            self._squares[rank] = np.dot(dw, dw)
            self.team.barrier()
            norm = math.sqrt(self._squares.sum())
            if norm > clip_norm:
                dw *= clip_norm / norm
        state = {name: vector[mine] for name, vector in self._state.items()}
        self.optimizer.decay(w[: max(self.network.decayed - mine.start, 0)], learning_rate)
        self.optimizer.update(w, dw, state, learning_rate, step)

    def _set_dropout(self, step: int) -> None:
        """Give each dropout layer the random numbers of this step and this member."""
        for index, layer in enumerate(self.network.layers):
            if isinstance(layer, Dropout):
                layer.rng = generator(
                    self.settings.seed, Concern.DROPOUT, index, step, self.team.rank
                )

    def _evaluate(self, which: float) -> None:
        """Measure this member's share of the chunks of a set of samples."""
        gather, indices, result = self._measured[int(which)]
        parts = chunks(len(indices))
        with np.errstate(all="ignore"):
            for part in parts[share(len(parts), self.team.rank, self.team.size)]:
                evaluate_chunk(self.network, self.loss, gather, indices, result, part)
