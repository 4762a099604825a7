"""Criteria, channel groups and batch-norm re-estimation: what torch-pruning leaves to its user."""
