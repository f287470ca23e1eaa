"""AWS: the only room with boto3.

Here: the client with its errors and retries, tags, the clock, instance metadata. In its rooms:
`nodes` (launch, watch and end instances), `money` (prices and bills), `account` (what a person
sets up once, and the role of each run).
"""
