"""`python -m nnctl` is the same program as `nnctl`."""

from nnctl.cli import main

main()
