"""`python -m flows` is `shunt`."""

from flows.cli import main

main()
