"""Recipes that come with the workbench."""
