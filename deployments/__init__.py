"""Deployments of the flow, and what a node needs to boot. No library code."""
