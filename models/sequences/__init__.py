"""What stands between a recogniser's backbone and its head: from (B, C, 1, T) features to T steps of (B, T, D)."""
