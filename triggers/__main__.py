"""`python -m triggers`, the same as the console script."""

from triggers.main import main

main()
