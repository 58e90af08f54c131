"""`python -m shared.cli` is `evertune`."""

from shared.cli import main

main()
