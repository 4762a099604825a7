"""`python -m compress`, for `accelerate launch -m compress run ...`."""

from compress.cli import main

main()
