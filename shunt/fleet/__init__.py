"""Fleets: the nodes that exist, started and ended through one seam."""
