"""Nodes: what is wanted against what there is.

Belongs here: the protocol of a fleet, the fleet of local processes, reconciliation, notices of
interruption, and whether the money allows another node. Does not: a provider's interface
(`shunt.aws`).
"""
