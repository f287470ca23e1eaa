"""What is asked: model, workload, offerings, objective, constraints.

Belongs here: the records of a question and how a planning file becomes one. Does not: any
arithmetic over them.
"""
