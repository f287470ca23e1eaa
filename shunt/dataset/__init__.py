"""Prompts: from input files to shards of checked rows.

Belongs here: reading files of any format, what a row may say, its errors and their codes,
preflight, rendering with the model's template, derived seeds, and the table of a shard. Does not:
anything that happens after a shard is written (`shunt.checkpoint`).
"""
