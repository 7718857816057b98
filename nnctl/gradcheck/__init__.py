"""Gradient check: backpropagation against central differences, and why they differ."""
