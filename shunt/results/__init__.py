"""Result files: one terminal row for every prompt, in the formats that people asked for.

Belongs here: the columns that are added, the writers of each format, publication, the summary.
Does not: where the rows come from (`shunt.run.collect`).
"""
