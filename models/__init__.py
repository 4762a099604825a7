"""Architectures: networks, training targets, losses and decoding. Knows no recipe, no stage and no file on disk."""
