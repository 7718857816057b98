import math
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import chain, islice
from typing import Any

import numpy as np
import pytest

from nnctl.config import Settings
from nnctl.datasets import DataSet, Samples
from nnctl.datasets.augmentation import Augmentation, Augmenter, Elastic
from nnctl.datasets.batches import Gatherer, shuffled
from nnctl.errors import ConfigError, Diverged
from nnctl.nn.functions import Array, softmax
from nnctl.training import engine
from nnctl.training.events import EpochFinished, RunFinished, RunStarted, StepFinished
from nnctl.training.process_group import Pace
from nnctl.training.trainer import Trainer

Make = Callable[..., Settings]


class Always(Pace):
    """Goes one way, whatever is faster."""

    def __init__(self, *, together: bool) -> None:
        super().__init__()
        self.together = together

    def note(self, seconds: float) -> None:
        pass


RICH = {
    "network": [{"affine": 8}, "gelu", {"dropout": 0.2}, {"affine": 5}],
    "optimizer": {"kind": "adamw"},
    "schedule": {"kind": "cosine"},
    "training": {"clip_norm": 0.5},
}


AUGMENTED = {"augment": {"shift": 1, "rotate": 30, "shear": 0.2, "elastic": {"strength": 1}}}


@contextmanager
def training(settings: Settings, data: DataSet, threads: int = 1) -> Iterator[Trainer]:
    with closing(Trainer(settings, data, threads)) as trainer:
        yield trainer


def finished(settings: Settings, data: DataSet, threads: int = 1) -> tuple[RunFinished, bytes]:
    """Train to the end; return the last word and all weights."""
    with training(settings, data, threads) as trainer:
        *_, last = trainer.events()
        assert isinstance(last, RunFinished)
        return last, trainer.engine.network.parameters.tobytes()


def rows(settings: Settings, data: DataSet, threads: int = 1) -> list[EpochFinished]:
    with training(settings, data, threads) as trainer:
        return [event for event in trainer.events() if isinstance(event, EpochFinished)]


def test_trainer_tells_of_each_step_while_nothing_happens_in_between(
    tiny_settings: Make, tiny_data: DataSet
) -> None:
    with training(tiny_settings(), tiny_data) as trainer:
        started, *steps = islice(trainer.events(), 4)
        assert isinstance(started, RunStarted)
        assert (started.train_samples, started.validation_samples) == (80, 40)
        assert all(isinstance(step, StepFinished) for step in steps)
        assert [step.step for step in steps if isinstance(step, StepFinished)] == [1, 2, 3]
        assert trainer.progress.step == 3


def test_epoch_sees_every_training_sample_once_the_last_partial_batch_too(
    tiny_settings: Make, tiny_data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with training(tiny_settings(training={"epochs": 2}), tiny_data) as trainer:
        seen: list[list[int]] = []
        gather = Gatherer.__call__

        def spy(gatherer: Gatherer, samples: Any) -> Any:
            seen.append(samples.tolist())
            return gather(gatherer, samples)

        monkeypatch.setattr(Gatherer, "__call__", spy)
        list(trainer.events())
        assert [len(batch) for batch in seen[:8]] == [25, 25, 25, 5] * 2
        assert len(seen) <= 9  # and once for the verdict
        first, second = list(chain(*seen[:4])), list(chain(*seen[4:8]))
        assert sorted(first) == sorted(second) == trainer.split.train.tolist()
        assert first != second


def test_batch_above_the_training_set_is_one_batch(tiny_settings: Make, tiny_data: DataSet) -> None:
    row = rows(tiny_settings(training={"batch_size": 1000, "epochs": 1}), tiny_data)[0]
    assert row.step == 1


def test_batch_loss_weighs_each_sample_the_same(tiny_settings: Make, tiny_data: DataSet) -> None:
    # With so small a learning rate the weights stand still: the mean over batches of 25, 25, 25
    # and 5 is then the mean over all samples, which one batch has too.
    still = {"kind": "sgd", "learning_rate": 1e-12}
    losses = [
        rows(tiny_settings(optimizer=still, training={"batch_size": size, "epochs": 1}), tiny_data)
        for size in (25, 80)
    ]
    assert losses[0][0].batch_loss == pytest.approx(losses[1][0].batch_loss, rel=1e-5)
    assert losses[0][0].batch_loss == pytest.approx(losses[0][0].train_loss, rel=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_same_seed_and_threads_give_the_same_bytes(
    tiny_settings: Make, tiny_data: DataSet, threads: int
) -> None:
    first, again = (finished(tiny_settings(**RICH), tiny_data, threads) for _ in range(2))
    assert replace(first[0], seconds=0) == replace(again[0], seconds=0)
    assert first[1] == again[1]
    assert finished(tiny_settings(**RICH, seed=1), tiny_data, threads)[1] != first[1]


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("data", [{}, AUGMENTED])
def test_threads_change_only_the_rounding(
    tiny_settings: Make, tiny_data: DataSet, threads: int, data: dict[str, Any]
) -> None:
    # Without dropout, whose masks are drawn for each share.
    network = [{"affine": 8}, "gelu", {"affine": 5}]
    changes = {"network": network, "optimizer": {"kind": "momentum"}, "data": data}
    settings = tiny_settings(**RICH | changes)
    weights = [np.frombuffer(finished(settings, tiny_data, n)[1], "f4") for n in (1, threads)]
    assert weights[0].tobytes() != weights[1].tobytes()
    np.testing.assert_allclose(weights[0], weights[1], atol=1e-5)


def alone(trainer: Trainer) -> None:
    """Let the caller compute what belongs to the workers, as beside a busy neighbour."""
    trainer.engine.group.pace = Always(together=False)


@pytest.mark.parametrize("data", [{}, AUGMENTED])
def test_who_computes_a_shard_changes_no_byte(
    tiny_settings: Make, tiny_data: DataSet, data: dict[str, Any]
) -> None:
    settings = tiny_settings(**RICH, data=data)
    with training(settings, tiny_data, threads=3) as trainer:
        alone(trainer)
        list(trainer.events())
        by_the_caller = trainer.engine.network.parameters.tobytes()
    assert by_the_caller == finished(settings, tiny_data, threads=3)[1]


@pytest.mark.parametrize("threads", [1, 2])
def test_step_learns_from_what_its_epoch_sees_and_measures_plain_images(
    tiny_settings: Make, tiny_data: DataSet, threads: int
) -> None:
    """One step of SGD an epoch, done by hand on augmented images; the curves' losses on plain."""
    images, labels, rate = tiny_data.train.images, tiny_data.train.labels, 0.05
    settings = tiny_settings(
        network=[{"affine": 5}],
        optimizer={"kind": "sgd", "learning_rate": rate},
        data=AUGMENTED,
        training={"epochs": 3, "batch_size": 80},
    )
    change = Augmenter(Augmentation(1, 30, 0, 0.2, Elastic(1)), images, (4, 3), seed=0)
    with training(settings, tiny_data, threads) as trainer:
        events, network = trainer.events(), trainer.engine.network
        next(events)
        for epoch in (1, 2, 3):
            w, b = (p.astype(np.float64) for p in network.named_parameters().values())
            row = next(event for event in events if isinstance(event, EpochFinished))
            order = shuffled(trainer.split.train, 0, epoch)
            x, t = change(epoch, order) / 255, np.eye(5)[labels[order]]
            assert row.batch_loss == pytest.approx(cross_entropy(x @ w + b, t), rel=1e-5)
            dz = (softmax(x @ w + b) - t) / 80
            w, b = w - rate * x.T @ dz, b - rate * dz.sum(axis=0)
            for found, expected in zip(network.named_parameters().values(), (w, b), strict=True):
                np.testing.assert_allclose(found, expected, atol=1e-6)
            for chosen, loss in (
                (trainer.split.train, row.train_loss),
                (trainer.split.validation, row.validation_loss),
            ):
                x, t = images[chosen] / 255, np.eye(5)[labels[chosen]]
                assert loss == pytest.approx(cross_entropy(x @ w + b, t), rel=1e-5)


def cross_entropy(z: Array, t: Array) -> float:
    return float(-(t * np.log(softmax(z))).sum(axis=1).mean())


@pytest.mark.parametrize("threads", [1, 2])
def test_dropout_draws_another_mask_for_each_shard_and_step(
    tiny_settings: Make, tiny_data: DataSet, threads: int
) -> None:
    with training(tiny_settings(**RICH), tiny_data, threads) as trainer:
        alone(trainer)  # both masks in this process
        masks = []
        for _ in islice(trainer.events(), 3):
            masks += [
                network.layers[2].mask[:12].tobytes()
                for network in trainer.engine.networks  # shards are of 12 and 13
                if hasattr(network.layers[2], "mask")
            ]
        assert len(masks) == len(set(masks)) == 2 * threads


def test_batch_norm_is_computed_in_one_process(tiny_settings: Make, tiny_data: DataSet) -> None:
    settings = tiny_settings(network=[{"affine": 6}, "batch_norm", "relu", {"affine": 5}])
    with training(settings, tiny_data, threads=2) as trainer:
        assert trainer.engine.group.size == 1
    assert finished(settings, tiny_data, 2)[1] == finished(settings, tiny_data, 1)[1]


def test_learning_rate_follows_the_schedule_at_every_step(
    tiny_settings: Make, tiny_data: DataSet
) -> None:
    settings = tiny_settings(
        schedule={"kind": "one_cycle", "rise": 0.5},
        optimizer={"kind": "sgd", "learning_rate": 1.0},
        training={"epochs": 1, "batch_size": 20},
    )
    with training(settings, tiny_data) as trainer:
        rates = [
            event.learning_rate for event in trainer.events() if hasattr(event, "learning_rate")
        ]
    assert rates == [0.5, 1.0, 1.0, 0.5]


def test_seconds_of_an_epoch_are_those_of_its_steps_and_of_nothing_else(
    tiny_settings: Make, tiny_data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes a second, measuring a part takes ten, and the caller a hundred an event."""
    now = 0.0
    learn, measure = engine.Engine.learn, engine.Engine.measure

    def slow_learn(self: engine.Engine, *arguments: Any) -> float:
        nonlocal now
        now += 1
        return learn(self, *arguments)

    def slow_measure(self: engine.Engine, part: str) -> Any:
        nonlocal now
        now += 10
        return measure(self, part)

    monkeypatch.setattr(engine.Engine, "learn", slow_learn)
    monkeypatch.setattr(engine.Engine, "measure", slow_measure)
    monkeypatch.setattr("nnctl.training.trainer.time.perf_counter", lambda: now)
    with training(tiny_settings(), tiny_data) as trainer:
        for event in trainer.events():
            now += 100
            if isinstance(event, EpochFinished):
                assert (event.seconds, event.evaluation_seconds) == (4, 20)
                assert event.samples_per_second == 80 / 4
            if isinstance(event, RunFinished):
                # Three epochs: four steps, two measurements, five events each; then the end.
                assert event.seconds == 3 * (4 + 20 + 500) + 100 + 20


# Early stopping and the best epoch, on histories made by hand.


def with_losses(trainer: Trainer, losses: list[float]) -> None:
    """Let the trainer believe that it has seen these validation losses."""
    row = next(event for event in trainer.events() if isinstance(event, EpochFinished))
    trainer.progress.history[:] = [
        replace(row, epoch=epoch, validation_loss=loss) for epoch, loss in enumerate(losses, 1)
    ]


@pytest.mark.parametrize(
    ("losses", "min_delta", "stops"),
    [
        ([1.0, 0.9, 0.95], 0.0, False),
        ([1.0, 0.9, 0.95, 0.9], 0.0, True),  # as good as the best is no better
        ([1.0, 0.9, 0.95, 0.8, 0.85], 0.0, False),  # a new best: the count starts anew
        ([1.0, 0.95, 0.89], 0.1, False),
        ([1.0, 0.96, 0.92], 0.1, True),  # each less than min_delta below the best
    ],
)
def test_early_stopping_waits_for_a_fall_of_more_than_min_delta(
    tiny_settings: Make, tiny_data: DataSet, losses: list[float], min_delta: float, stops: bool
) -> None:
    rule = {"patience": 2, "min_delta": min_delta}
    with training(tiny_settings(training={"early_stopping": rule}), tiny_data) as trainer:
        with_losses(trainer, losses)
        assert trainer.out_of_patience is stops


def test_early_stopping_ends_the_run(tiny_settings: Make, tiny_data: DataSet) -> None:
    training = {"epochs": 50, "early_stopping": {"patience": 2, "min_delta": 10.0}}
    last, _ = finished(tiny_settings(training=training), tiny_data)
    assert (last.status, last.epochs) == ("early_stopped", 3)
    assert last.test_accuracy is not None


def test_best_epoch_is_the_earliest_on_a_tie(tiny_settings: Make, tiny_data: DataSet) -> None:
    still = {"kind": "sgd", "learning_rate": 1e-12}
    assert finished(tiny_settings(optimizer=still), tiny_data)[0].best_epoch == 1


def test_final_figures_are_those_of_the_best_weights(
    tiny_settings: Make, tiny_data: DataSet
) -> None:
    settings = tiny_settings(optimizer={"kind": "sgd", "learning_rate": 3.0}, seed=3,
                             training={"epochs": 12, "batch_size": 10})  # fmt: skip
    with training(settings, tiny_data) as trainer:
        events = list(trainer.events())
        last = events[-1]
        assert isinstance(last, RunFinished)
        history = [event for event in events if isinstance(event, EpochFinished)]
        best = min(history, key=lambda row: (row.validation_loss, row.epoch))
        assert best.epoch < 12  # otherwise best is last, and nothing is shown
        assert (last.best_epoch, last.validation_loss) == (best.epoch, best.validation_loss)
        assert trainer.engine.measure("validation").loss == best.validation_loss


def test_snapshot_keeps_the_losses_of_the_best_epoch_and_of_the_last(
    tiny_settings: Make, tiny_data: DataSet
) -> None:
    """The verdict of a resumed run rests on them."""
    settings = tiny_settings(optimizer={"kind": "sgd", "learning_rate": 3.0}, seed=3,
                             training={"epochs": 12, "batch_size": 10})  # fmt: skip
    with training(settings, tiny_data) as trainer:
        last = next(
            event
            for event in trainer.events()
            if isinstance(event, EpochFinished) and event.epoch == 12
        )
        best, snapshot = trainer.best, trainer.snapshot()
        assert best is not None
        assert best.epoch < 12
        assert snapshot.best_losses.mean() == pytest.approx(best.validation_loss, rel=1e-5)
        assert snapshot.last_losses.mean() == pytest.approx(last.validation_loss, rel=1e-5)


def test_snapshot_stays_as_it_is_while_training_goes_on(
    tiny_settings: Make, tiny_data: DataSet
) -> None:
    with training(tiny_settings(), tiny_data) as trainer:
        events = trainer.events()
        next(events), next(events)
        snapshot = trainer.snapshot()
        weights = {name: array.copy() for name, array in snapshot.parameters.items()}
        list(events)
        progress = snapshot.progress
        assert (progress.step, len(progress.recent_losses), progress.history) == (1, 1, [])
        for name, array in snapshot.parameters.items():
            np.testing.assert_array_equal(array, weights[name])


def test_without_validation_the_test_set_is_monitored_and_chooses_nothing(
    tiny_settings: Make, tiny_data: DataSet
) -> None:
    settings = tiny_settings(data={"validation": 0})
    last, _ = finished(settings, tiny_data)
    history = rows(settings, tiny_data)
    assert last.best_epoch is last.validation_loss is last.validation_accuracy is None
    assert (last.test_loss, last.test_accuracy) == (
        history[-1].test_loss,
        history[-1].test_accuracy,
    )
    assert all(row.test_loss is not None and row.validation_loss is None for row in history)


def test_with_validation_the_test_set_is_measured_once(
    tiny_settings: Make, tiny_data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[str] = []
    measure = engine.Engine.measure

    def spy(self: engine.Engine, part: str) -> Any:
        parts.append(part)
        return measure(self, part)

    monkeypatch.setattr(engine.Engine, "measure", spy)
    finished(tiny_settings(), tiny_data)
    assert parts == ["train", "validation"] * 3 + ["validation", "test"]


def test_training_curve_is_measured_on_some_fixed_samples(
    tiny_settings: Make, tiny_data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "CURVE_SAMPLES", 30)
    samples = []
    for seed in (0, 1):
        with training(tiny_settings(seed=seed), tiny_data) as trainer:
            _, indices, _ = trainer.engine._measured["train"]
            samples.append(indices.tolist())
            assert set(samples[-1]) <= set(trainer.split.train.tolist())
    assert len(set(samples[0])) == 30  # none of them twice
    assert samples[0] == samples[1]


# What can't be trained.


def test_nothing_left_to_train_on_is_told(tiny_settings: Make, tiny_data: DataSet) -> None:
    with pytest.raises(ConfigError, match="hold out fewer"):
        Trainer(tiny_settings(data={"validation": 120}), tiny_data)


@pytest.mark.parametrize("threads", [1, 2])
def test_divergence_names_epoch_step_and_learning_rate(
    tiny_settings: Make, tiny_data: DataSet, threads: int
) -> None:
    settings = tiny_settings(
        optimizer={"kind": "sgd", "learning_rate": 1e30}, loss="mean_squared_error"
    )
    with (
        training(settings, tiny_data, threads) as trainer,
        pytest.raises(Diverged, match=r"epoch 1, step \d, learning rate 1e\+30"),
    ):
        list(trainer.events())


def with_batch_losses(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Let the engine tell these losses of its steps, four an epoch."""
    told = iter(losses)
    monkeypatch.setattr(engine.Engine, "learn", lambda *arguments: next(told))


@pytest.mark.parametrize(
    ("losses", "step"),
    [
        ([1.0, 1.0, 1.0, 1000.0], 4),
        ([1.0] * 8 + [150.0] * 4, 11),  # 150 three times and 1: 112.75 on average
        ([0.5] + [1.0] * 7 + [70.0] * 4, 11),  # against the first loss
    ],
)
def test_loss_that_explodes_is_divergence_before_it_is_infinite(
    tiny_settings: Make,
    tiny_data: DataSet,
    monkeypatch: pytest.MonkeyPatch,
    losses: list[float],
    step: int,
) -> None:
    with_batch_losses(monkeypatch, losses)
    with (
        training(tiny_settings(), tiny_data) as trainer,
        pytest.raises(Diverged, match=rf"has grown from .* to .*, step {step},"),
    ):
        list(trainer.events())


@pytest.mark.parametrize("losses", [[1.0, 250.0, 1.0, 1.0], [1.0, 1.0, 1.0, 390.0]])
def test_single_high_loss_is_no_divergence(
    tiny_settings: Make, tiny_data: DataSet, monkeypatch: pytest.MonkeyPatch, losses: list[float]
) -> None:
    # The mean of an epoch's four steps is below 100, that of the first two of them is not.
    with_batch_losses(monkeypatch, losses)
    assert rows(tiny_settings(training={"epochs": 1}), tiny_data)[0].step == 4


@pytest.mark.parametrize("loss", [math.nan, math.inf])
@pytest.mark.parametrize(("step", "epoch"), [(1, 1), (4, 1), (5, 2)])
def test_loss_that_is_not_finite_is_divergence_in_its_epoch(
    tiny_settings: Make,
    tiny_data: DataSet,
    monkeypatch: pytest.MonkeyPatch,
    loss: float,
    step: int,
    epoch: int,
) -> None:
    with_batch_losses(monkeypatch, [1.0] * (step - 1) + [loss])
    with (
        training(tiny_settings(), tiny_data) as trainer,
        pytest.raises(
            Diverged, match=rf"loss is {loss} \(epoch {epoch}, step {step}, learning rate"
        ),
    ):
        list(trainer.events())


@pytest.mark.parametrize(
    ("bias", "words"),
    [(math.inf, r"2\.affine\.bias is not finite"), (-3e38, "the train loss is inf")],
)
def test_weight_that_is_too_large_ends_the_epoch(
    tiny_settings: Make,
    tiny_data: DataSet,
    monkeypatch: pytest.MonkeyPatch,
    bias: float,
    words: str,
) -> None:
    with_batch_losses(monkeypatch, [1.0] * 4)
    with training(tiny_settings(), tiny_data) as trainer:
        trainer.engine.network.named_parameters()["2.affine.bias"][:2] = bias, 3e38
        with pytest.raises(Diverged, match=rf"{words} \(epoch 1, step 4,"):
            list(trainer.events())
        assert trainer.progress.history == []


def test_weight_that_is_not_finite_is_never_kept(tiny_settings: Make, tiny_data: DataSet) -> None:
    with training(tiny_settings(), tiny_data) as trainer:
        trainer.engine.network.named_parameters()["2.affine.bias"][3] = math.inf
        with pytest.raises(Diverged, match=r"2\.affine\.bias is not finite"):
            trainer.snapshot()


def test_optimizer_vector_that_is_not_finite_is_never_kept(
    tiny_settings: Make, tiny_data: DataSet
) -> None:
    with training(tiny_settings(), tiny_data) as trainer:
        name = next(iter(trainer.engine.state))
        trainer.engine.state[name][-1] = math.nan
        with pytest.raises(Diverged, match=f"{name} is not finite"):
            trainer.snapshot()


def test_trainer_leaves_the_data_as_they_are(tiny_settings: Make, tiny_data: DataSet) -> None:
    train, test = (Samples(*map(np.copy, part)) for part in (tiny_data.train, tiny_data.test))
    for array in (*train, *test):
        array.setflags(write=False)  # whoever writes to it raises
    finished(tiny_settings(), replace(tiny_data, train=train, test=test))
