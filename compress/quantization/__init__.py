"""NNCF in one place: fold, calibrate, restore."""
