"""What is saved of a shard while it is generated, and who may save it.

Belongs here: requests and generations, segments, the checkpoint log, leases with their epochs and
seals, replay into progress, the mark of a shard that is done. Does not: the life of a run
(`shunt.run`), nodes (`shunt.fleet`), when to save (`workers.shards`).
"""
