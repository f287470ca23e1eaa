"""What an account needs before nodes can be bought, checked, made and removed.

Belongs here: policies, roles, templates, buckets' rules, the notice queue, the code bundle, and
the role of one run. Does not: instances (`shunt.aws.nodes`).
"""
