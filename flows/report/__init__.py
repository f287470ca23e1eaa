"""The page of a run's report: one HTML file that needs nothing else.

Belongs here: charts, sentences, the template. Does not: what is told (`shunt.report`).
"""
