"""Images of one line of text each."""
