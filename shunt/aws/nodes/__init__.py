"""Instances of EC2: launched, watched, replaced and ended for a run.

Belongs here: intents and launch requests, pools, zones and placement groups, notices by queue, the
inventory by tags, the reaper. Does not: prices (`shunt.aws.money`), permissions
(`shunt.aws.account`).
"""
