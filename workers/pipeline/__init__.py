"""Pipelines whose stages differ: tensor parallelism, layers and nodes each of their own."""
