"""A worker's shards: taken by lease, opened, saved at a cadence, given back.

Belongs here: which shard is next, in which order its requests run, when a segment is written.
Does not: the engine (`workers.engine_room`).
"""
