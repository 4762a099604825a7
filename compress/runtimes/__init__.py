"""Every runtime behind one face: open a file, run an array, measure latency."""
