"""The training loop, its schedules and averages: nothing of any architecture."""
