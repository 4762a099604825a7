"""Formats, the synthetic generator, augmentation and loaders."""
