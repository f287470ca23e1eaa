"""Drills: a job against a recorded trace of spot capacity, in virtual time or on this machine."""
