"""Where everything durable lives: nine verbs over a directory or S3.

Belongs here: the protocol, its implementations, their configuration and errors, and what numbered
objects under one prefix mean. Does not: what the objects hold (the room of that noun) and what
they are called (`shunt.keys`).
"""
