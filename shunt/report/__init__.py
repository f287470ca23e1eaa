"""The story of a run: what the report of it tells, as data, read from the store alone.

Belongs here: lives of nodes, speed over time, the tail, money by pool, rows with errors, the
forecast against what happened. Does not: how it looks on a page (`flows.report`).
"""
