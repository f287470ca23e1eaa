"""The job: what a person asks for.

Belongs here: the model of a job file, how the file is read, the sampling parameters. Does not:
what becomes of a job once it runs (`shunt.run`).
"""
