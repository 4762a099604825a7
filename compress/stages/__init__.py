"""The five kinds of stage, one file each."""
