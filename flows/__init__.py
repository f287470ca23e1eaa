"""The edge: the command line and the Prefect flow.

`commands` parse and print, `drive` runs a job on a fleet, `prefect` shows and schedules it,
`screen` draws it on a terminal, `report` on a page, `drill` rehearses interruptions. Here: what
they share of the process's surroundings and its exit codes.
"""
