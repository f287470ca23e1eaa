"""The only room with Prefect: the flow, its task runs, artifacts and server session.

Belongs here: how a run is shown and scheduled. Does not: anything that a run needs to finish.
"""
