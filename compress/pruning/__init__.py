"""Criteria, channel groups and batch-norm statistics: what torch-pruning leaves to its user."""
