"""The networks and losses, one file for each algorithm: all that needs torch."""
