"""Doubles that are shipped: stores that fail on cue, a proxy that does, a real S3 server."""
