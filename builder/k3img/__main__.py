"""`python -m k3img`."""

from k3img.cli import main

main()
