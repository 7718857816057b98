"""What a command looks at: a config, its data, and the weights of a run or those of the seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from nnctl.config import Settings
from nnctl.datasets import DataSet
from nnctl.datasets.batches import Gatherer
from nnctl.errors import printable
from nnctl.inspection.course import TrainingCourse
from nnctl.nn.functions import Array
from nnctl.nn.network import Network
from nnctl.runs.checkpoint import Checkpoint
from nnctl.runs.folder import RunFolder, read_metrics
from nnctl.runs.origin import origin_of
from nnctl.training.engine import InitialWeights, build_augmenter, build_network
from nnctl.training.examination import course_of


@dataclass(frozen=True)
class Experiment:
    """A config, its data, and the run that it and the weights come from, if one was named."""

    settings: Settings
    data: DataSet
    run: str | None = None  # as it was named
    checkpoint: Checkpoint | None = None  # the run's; None: the network is not trained yet
    folder: RunFolder | None = None  # the run's, if the checkpoint lies in one

    @property
    def weights(self) -> dict[str, Array] | None:
        """The weights of the checkpoint."""
        return None if self.checkpoint is None else self.checkpoint.snapshot.parameters

    @property
    def title(self) -> str:
        """The config's name, and which weights the network has."""
        if self.run is None:
            return f"{self.settings.name} before training"
        return f"{self.settings.name} with the weights of {printable(self.run)}"

    def gatherer(self, dtype: Any = "float32", *, augmented: bool = True) -> Gatherer:
        """Return what collects training samples: their images as the first epoch sees them.

        They are plain if that is what training sees, and without `augmented`.
        """
        augmenter = build_augmenter(self.settings, self.data) if augmented else None
        augment = None if augmenter is None else partial(augmenter, 1)
        return Gatherer(self.data.train, augment=augment, dtype=dtype)

    def network(self, dtype: Any = "float32") -> Network:
        """Return the network: with the run's weights, or where training starts."""
        network = build_network(self.settings, self.data.train.images.shape[1], dtype=dtype)
        if self.weights is None:
            network.initialize(self.settings.seed)
        else:
            network.load(self.weights)
        return network

    def course(self) -> TrainingCourse | None:
        """Return how the run has gone, also after these weights; None without one.

        Raises:
            RunError: the run's metrics are damaged.

        """
        if self.checkpoint is None:
            return None
        progress = self.checkpoint.snapshot.progress
        history = [vars(row) for row in progress.history]
        rows = history if self.folder is None else read_metrics(self.folder)
        return course_of(rows, progress.initial_loss)

    def initial_weights(self) -> InitialWeights | None:
        """Return the weights from elsewhere that training began with, if it did."""
        return None if self.checkpoint is None else origin_of(self.folder, self.checkpoint)
