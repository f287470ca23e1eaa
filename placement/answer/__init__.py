"""What is answered: the plan, its forecast, its explanation and picture, the next plan.

Belongs here: everything that turns a purchase into words or a `shunt.plan.Plan`. Does not:
finding it (`placement.search`).
"""
