"""The settings of a training run: typed, complete, and checked against each other."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, TypeVar

from nnctl.config.layers import NetworkSchema
from nnctl.config.names import DatasetSchema, RunNameSchema
from nnctl.config.schema import Choice, CountOrFractionSchema, KindSchema, mapping_schema
from nnctl.config.yaml_tree import Place
from nnctl.datasets.augmentation import Augmentation, Elastic
from nnctl.errors import ConfigError
from nnctl.nn.hyperparameters import Count, NotNegative, Positive, Range
from nnctl.nn.initializers import Initializer
from nnctl.nn.losses import Loss
from nnctl.nn.optimizers import Optimizer
from nnctl.nn.schedules import Schedule

T = TypeVar("T")

MOST_HELD_OUT = 5000  # where a config does not say how many

# The kinds of a config that names none.
LOSS, OPTIMIZER, SCHEDULE = map(Choice, ("softmax_cross_entropy", "sgd", "constant"))
INITIALIZER = Choice("he_normal")

Whole = Annotated[int, Range(ge=0)]


@dataclass(frozen=True)
class DataSettings:
    """Which images are trained on, and which are held out."""

    dataset: Annotated[
        str, DatasetSchema(), "A data set's name, or the path of a folder with the four IDX files."
    ] = "mnist"
    validation: Annotated[
        int | float | None,
        CountOrFractionSchema(),
        "Images held out of the training set, or a fraction of it; null: 5,000, but at most a "
        "tenth of it; 0: none, the test set is only monitored.",
    ] = None
    train_size: Annotated[Count | None, "Use only so many training images."] = None
    split_seed: Annotated[Whole, "Decides which images these are."] = 0
    augment: Annotated[
        Augmentation | None, "Change the images trained on, anew in every epoch, by up to so much."
    ] = None

    @property
    def monitored(self) -> str:
        """The set that is monitored during training: validation, or test where none is held out."""
        return "test" if self.validation == 0 else "validation"

    def held_out(self, train_samples: int) -> int:
        """Return how many of so many images are held out."""
        if self.validation is None:
            return min(MOST_HELD_OUT, train_samples // 10)
        if isinstance(self.validation, float):
            return round(self.validation * train_samples)
        return self.validation


@dataclass(frozen=True)
class EarlyStopping:
    """When to give up hope for a lower validation loss."""

    patience: Annotated[Count, "Epochs without the validation loss falling."]
    min_delta: Annotated[NotNegative, "A fall must be larger than this to count."] = 0.0


@dataclass(frozen=True)
class TrainingSettings:
    """How long, in which portions, and with which safeguards."""

    epochs: Annotated[Count, "How often each training image is seen."] = 16
    batch_size: Annotated[Count, "Images a step; more than there are make one batch."] = 100
    early_stopping: Annotated[
        EarlyStopping | None, "Stop when the validation loss no longer falls."
    ] = None
    clip_norm: Annotated[Positive | None, "Scale gradients of a larger norm down to this."] = None
    checkpoint_seconds: Annotated[
        NotNegative, "Write a checkpoint inside an epoch after so many seconds."
    ] = 30.0
    log_steps: Annotated[bool, "Keep the loss of every batch in the run's steps.jsonl."] = False


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that decides what a run computes, and its name."""

    name: Annotated[str, RunNameSchema(), "The run's name; default: the name of the file."] = ""
    seed: Annotated[
        Whole, "Decides first weights, order and augmentation of the images, and dropout."
    ] = 0
    data: Annotated[DataSettings, "The images."] = DataSettings()
    network: Annotated[tuple[Choice, ...], NetworkSchema(), "The layers, in order."]
    # Once a config is loaded each layer has its own: this one decides nothing any more.
    initializer: Annotated[
        Choice,
        KindSchema(Initializer, INITIALIZER.kind),
        "First weights of all layers that name no initializer of their own.",
    ] = field(default=INITIALIZER, compare=False)
    loss: Annotated[Choice, KindSchema(Loss, LOSS.kind), "What training minimises."] = LOSS
    optimizer: Annotated[
        Choice, KindSchema(Optimizer, OPTIMIZER.kind), "How a gradient changes the weights."
    ] = OPTIMIZER
    schedule: Annotated[
        Choice, KindSchema(Schedule, SCHEDULE.kind), "How the learning rate changes over the run."
    ] = SCHEDULE
    training: Annotated[TrainingSettings, "The course of training."] = TrainingSettings()
    # Where keys stand in the text, for errors that show only later.
    places: Mapping[str, Place] = field(default_factory=dict, compare=False, repr=False)

    def error(self, path: str, message: str) -> ConfigError:
        """Return an error about the value at `path`, which shows where that stands."""
        place = self.places.get(path)
        return ConfigError(place.show(message) if place else message)


def build(registry: Mapping[str, type[T]], choice: Choice) -> T:
    """Return the object that `choice` describes, choices in its options included."""
    kind = registry[choice.kind]
    properties = mapping_schema(kind).properties
    options = dict(choice.options)
    for name, value in choice.options.items():
        schema = properties[name]
        if isinstance(schema, KindSchema):
            options[name] = build(schema.registry, _to_choice(value))
    return kind(**options)


def to_dict(settings: Settings) -> dict[str, Any]:
    """Return the settings as plain values, complete: what a config would say."""
    return {
        "name": settings.name,
        "seed": settings.seed,
        "data": asdict(settings.data),
        "network": [{layer.kind: deepcopy(layer.options)} for layer in settings.network],
        "loss": _from_choice(settings.loss),
        "optimizer": _from_choice(settings.optimizer),
        "schedule": _from_choice(settings.schedule),
        "training": asdict(settings.training),
    }


def from_dict(plain: Mapping[str, Any], places: Mapping[str, Place]) -> Settings:
    """Return the settings of plain values that are known to be complete and right."""
    data, training = dict(plain["data"]), dict(plain["training"])
    if data["augment"] is not None:
        data["augment"] = augmentation(data["augment"])
    if training["early_stopping"] is not None:
        training["early_stopping"] = EarlyStopping(**training["early_stopping"])
    return Settings(
        name=plain["name"],
        seed=plain["seed"],
        data=DataSettings(**data),
        network=tuple(Choice(*item) for layer in plain["network"] for item in layer.items()),
        **{key: _to_choice(plain[key]) for key in ("initializer", "loss", "optimizer", "schedule")},
        training=TrainingSettings(**training),
        places=places,
    )


def augmentation(plain: Mapping[str, Any]) -> Augmentation:
    """Return the augmentation of plain values that are known to be complete and right."""
    return Augmentation(**{**plain, "elastic": Elastic(**plain["elastic"])})


def _from_choice(choice: Choice) -> dict[str, Any]:
    return {"kind": choice.kind, **deepcopy(choice.options)}


def _to_choice(plain: Mapping[str, Any]) -> Choice:
    options = dict(plain)
    return Choice(options.pop("kind"), options)
