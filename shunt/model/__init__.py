"""A model's files: where they are, which they are, and how they come to a machine, verified.

Belongs here: listings (name, size, digest), the places that files are read from (a directory, a
bucket, the Hugging Face hub), fetching to a disk, pushing to a bucket. Does not: what the engine
does with weights (`workers`).
"""
