"""`python -m compress`, for `torchrun --nproc_per_node 2 -m compress run ...`."""

from compress.cli import main

main()
