"""What a pipeline would yield: time of a stage, memory, throughput, goodput.

Belongs here: the roofline model, its calibration from measurements, and the table that the search
works on. Does not: choosing between pipelines (`placement.search`).
"""
