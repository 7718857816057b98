"""Neural networks on MNIST from the command line, with every gradient written by hand."""

__version__ = "0.1.0"
