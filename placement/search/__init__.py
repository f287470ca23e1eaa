"""Which pipelines are best, with a bound on how much better any could be.

Belongs here: column generation, the small and the large route, the master problem, scenarios,
advice when nothing fits. Does not: seconds and bytes (`placement.estimate`).
"""
