"""Training: the loop, its workers, its checkpoints and the folder a run leaves behind."""
