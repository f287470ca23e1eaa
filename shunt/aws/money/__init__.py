"""What EC2 asks and what a run has spent: prices, offerings, the bill and its meter.

Belongs here: everything in USD that AWS says. Does not: whether to go on buying
(`shunt.fleet.budget`).
"""
