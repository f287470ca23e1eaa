"""The plan as data: pipelines on slots, what can be bought, and what a run keeps of both.

Belongs here: records that the planner, the nodes and the flows share (plan, offering sheet, seats
of nodes, numbered launches). Does not: how a plan is found (`placement`), how it is made true
(`shunt.fleet`).
"""
