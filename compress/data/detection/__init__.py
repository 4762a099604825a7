"""Scenes with words: formats in folders, augmentation, synthetic scenes."""
