"""Pure planning: which pipelines on which nodes, and why.

Its rooms stand on each other in this order: `catalogue` (what is known), `question` (what is
asked), `estimate` (what a pipeline yields), `search` (which pipelines are best), `answer` (the
plan and its explanation). No clock, no network, no torch.
"""
