"""Predictions as CSV."""

import numpy as np

from nnctl.runs.predictions import predictions_csv
from nnctl.training.evaluation import Evaluation


def test_predictions_csv_keeps_the_place_in_the_original_file() -> None:
    result = Evaluation(
        labels=np.array([4, 1]),
        losses=np.zeros(2, np.float32),
        predictions=np.array([4, 9], np.uint8),
        probabilities=np.array([0.5, 0.25], np.float32),
    )
    assert predictions_csv(result, [17, 3]).decode().splitlines() == [
        "index,label,prediction,probability",
        "17,4,4,0.5",
        "3,1,9,0.25",
    ]
