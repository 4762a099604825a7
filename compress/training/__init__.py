"""The training loop, schedules and averages: nothing of any architecture."""
