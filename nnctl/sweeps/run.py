"""The scheduler: keeps trials under way, writes down and reports what comes of them.

    for event in run(sweep, search, executor):
        ...  # draw, print; stop iterating to end

It is a loop over the folder: what it knows it has read there or written there. The test set is
none of its business.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from nnctl.errors import DataError, RunError, SystemFailure, printable
from nnctl.runs.folder import read_manifest
from nnctl.sweeps.executors import MAX_KILLS, Executor, TrainingEnded, error_text, was_killed
from nnctl.sweeps.folder import SweepFolder, read_trials, write_trial
from nnctl.sweeps.orders import PruningRule
from nnctl.sweeps.plan import Trial, can_be_planned, pruning_limit, values
from nnctl.sweeps.settings import Search
from nnctl.sweeps.training import Result, Training, read_result
from nnctl.training.events import Notice

TICK = 0.5  # seconds between two ticks where nothing ends


@dataclass(frozen=True)
class TrialStarted:
    """A trial is under way, for the first time or again."""

    trial: Trial


@dataclass(frozen=True)
class TrialFinished:
    """Nothing of a trial is left to do."""

    trial: Trial


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


Event = TrialStarted | TrialFinished | Notice | Tick


def run(sweep: SweepFolder, search: Search, executor: Executor) -> Iterator[Event]:
    """Run all trials that are not over, and yield what happens.

    Raises:
        RunError: a file of the sweep is damaged.
        DataError: the data can't be had, or differ from those of earlier trials.
        SystemFailure: something could not be written, or a training could not go on.

    """
    scheduler = _Scheduler(sweep, search, executor)
    while True:
        yield from scheduler.start_trials()
        if not scheduler.under_way:
            return
        for ended in executor.wait(TICK):
            yield from scheduler.take(ended)
        yield Tick()


class _Scheduler:
    """The trials so far, and which of them are under way."""

    def __init__(self, sweep: SweepFolder, search: Search, executor: Executor) -> None:
        self.sweep, self.search, self.executor = sweep, search, executor
        self.trials = read_trials(sweep, search)
        self.under_way: set[int] = set()
        self.results: dict[int, list[Result]] = {}  # of the trainings of a trial under way
        self.next = 0  # no trial below it has to be started
        self.kills: Counter[int] = Counter()
        self.data: dict[str, str] | None = None  # SHA-256 of the data, once a training is over

    def start_trials(self) -> Iterator[Event]:
        """Start trials until as many are under way as may be."""
        while len(self.under_way) < self.search.parallel and self.next < self.search.trials:
            k = self.next
            if k not in self.trials:
                if not can_be_planned(self.search, k, self.trials):
                    return
                self._write(Trial(trial=k, parameters=values(self.search, k, self.trials)))
            self.next += 1
            if self.trials[k].over:
                continue
            self.under_way.add(k)
            self.results[k] = []
            yield TrialStarted(self.trials[k])
            yield from self._go_on(k)

    def take(self, ended: TrainingEnded) -> Iterator[Event]:
        """Note that a training has ended, and go on with its trial."""
        k = ended.training.trial
        done = read_result(self.search, ended.training)
        if done is not None:
            self._check_data(ended.training, ended.where)
            self.results[k].append(done)
            yield from self._go_on(k)
        elif was_killed(ended.code) and self.kills[k] < MAX_KILLS:
            self.kills[k] += 1
            yield Notice(f"trial {k}: its training was killed; it goes on from its last checkpoint")
            self.executor.submit(ended.training)
        else:
            yield from self._failed(ended)

    def _go_on(self, k: int) -> Iterator[Event]:
        """Submit the next training of trial `k`, or finish the trial."""
        results = self.results[k]
        seeds = self.search.training_seeds()
        while len(results) < len(seeds) and all(r.state == "complete" for r in results):
            training = self._training(k, seeds[len(results)])
            # It may have ended before the sweep was killed.
            done = read_result(self.search, training)
            if done is None:
                self.executor.submit(training)
                return
            self._check_data(training)
            results.append(done)
        yield self._finish(k)

    def _training(self, k: int, seed: int) -> Training:
        limit = pruning_limit(self.search, k, self.trials)
        rule = None
        if limit is not None and seed == self.search.seed:
            assert self.search.prune_after is not None
            rule = PruningRule(
                self.search.prune_after, self.search.objective, self.search.maximised, limit
            )
        return Training(
            trial=k,
            seed=seed,
            run=self.sweep.run(k, seed),
            config=self.sweep.config,
            overrides=tuple(self.search.overrides(self.trials[k].parameters, seed)),
            rule=rule,
        )

    def _finish(self, k: int) -> TrialFinished:
        """Write down what came of a trial whose trainings are over."""
        results = self.results[k]
        state = results[-1].state
        found = tuple(r.objective for r in results if r.objective is not None)
        complete = state == "complete" and len(found) == len(results)
        return self._end(
            replace(
                self.trials[k],
                state=state if complete or state != "complete" else "failed",
                objective=statistics.fmean(found) if complete else None,
                objectives=found,
                early=results[0].early,
                network=results[0].parameters,
                seconds=sum(r.seconds for r in results),
                error=None if complete or state != "complete" else "it has no objective",
            )
        )

    def _failed(self, ended: TrainingEnded) -> Iterator[Event]:
        """Note a training that came to nothing; end the sweep if that is not the trial's fault."""
        k, code = ended.training.trial, ended.code
        where = f" on {ended.where}" if ended.where else ""
        reason = error_text(ended.message) or f"it ended with {code}"
        before = self.trials[k]
        message = f"trial {k}{where}: {reason}"
        if code == DataError.exit_code:
            raise DataError(message)
        # A full disk would fail all trials that are left. Tried again by hand, it may be the trial.
        if code == SystemFailure.exit_code and before.error is None:
            self._write(replace(before, error=reason))
            raise SystemFailure(f"{message}\nif that happens again, the trial counts as failed")
        yield self._end(replace(before, state="failed", error=reason))

    def _end(self, trial: Trial) -> TrialFinished:
        self.under_way.discard(trial.trial)
        self.results.pop(trial.trial)
        self._write(trial)
        return TrialFinished(trial)

    def _write(self, trial: Trial) -> None:
        write_trial(self.sweep, trial)
        self.trials[trial.trial] = trial

    def _check_data(self, training: Training, where: str = "") -> None:
        """Hold the data of a training against those of the others.

        Raises:
            DataError: they differ.

        """
        run = training.run
        manifest = read_manifest(run)
        if self.data is None:
            self.data = self._data_of_earlier() or manifest.data_sha256
        if manifest.data_sha256 != self.data:
            names = sorted(
                name
                for name in {*self.data, *manifest.data_sha256}
                if self.data.get(name) != manifest.data_sha256.get(name)
            )
            where = f" on {where}" if where else ""
            raise DataError(
                f"trial {training.trial}{where}: trained on other data than earlier trials: "
                f"{', '.join(map(printable, names))} differ\n"
                f"remove {printable(run.path)} and bring the original files back"
            )

    def _data_of_earlier(self) -> dict[str, str] | None:
        """Return the SHA-256 of the data of a trial that is over."""
        for trial in self.trials.values():
            if trial.state == "complete":
                run = self.sweep.run(trial.trial, self.search.seed)
                with suppress(RunError):
                    return read_manifest(run).data_sha256
        return None
