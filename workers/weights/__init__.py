"""Weights that are already there: what a stage reads of a checkpoint, and the node's tensor store.

Belongs here: the plan of byte ranges, the store's process and its client, the model loader by which
vLLM maps what the store has. Does not: where a model's files come from (`shunt/model`), and what a
process has imported (`workers/warm`).
"""
