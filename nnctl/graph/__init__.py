"""Computational graphs of expressions: values forward, derivatives backward."""
