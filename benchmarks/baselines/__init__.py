"""Planners and estimators of others, written from their descriptions, to compare ours with."""
