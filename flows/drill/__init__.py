"""Rehearsals: a job against a recorded trace of interruptions, estimated or real.

Belongs here: running and estimating them. Does not: the traces (`shunt.drill`).
"""
