"""A node of a plan: what it runs of the plan's pipelines, and how it finds the other nodes."""
