"""Reading other frameworks' weights: one file a format, one file a family of architectures with its names."""
