"""Protocols that score detections against ground truth."""
