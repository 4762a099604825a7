"""Networks and their losses. They need torch; labels, decoding and settings, which do not, are in `compress.models.<name>`."""
