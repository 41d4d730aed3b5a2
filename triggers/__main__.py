"""`python -m triggers`, the same as the console script."""

from triggers.cli import main

main()
