"""What a terminal shows of a run or a plan.

Belongs here: progress, summaries, tables. Does not: reading the store.
"""
