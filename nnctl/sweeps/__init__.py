"""Sweeps: many trainings from one search space, planned, run somewhere, and judged."""
