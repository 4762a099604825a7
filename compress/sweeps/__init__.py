"""Many runs of one recipe: what is varied, each run as a trial, and what the trials say together."""
