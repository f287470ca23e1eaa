"""What is known before anything is asked: GPUs, instance types, models, prices, constants.

Belongs here: shipped data files, how they are read, and the shapes of models. Does not: fitting
the constants (`placement.estimate`).
"""
