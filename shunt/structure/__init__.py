"""Structured outputs: whether a constraint can be enforced, by which grammar back end, and whether
an answer keeps it.

Belongs here: what is known of the back ends without running them, the way to a worker environment
that compiles, the choice of one back end per job, the check of finished answers. Does not: masking
tokens, which is the engine's.
"""
