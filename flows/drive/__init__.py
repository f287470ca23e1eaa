"""Driving a run: prepare, hold nodes, watch, collect.

Belongs here: the loop that every entry point uses, and which nodes a job asks for. Does not:
Prefect, terminals.
"""
