"""The life of one run, from its manifest to its verified results.

Belongs here: what is made before the first token (prepare, manifest, kept job), what is told
while it runs (node status, events, cancellation, spend, status, outlook) and what is done at its
end (collect, verify, audit). Does not: who keeps nodes alive (`shunt.fleet`).
"""
