"""`python -m flows` is `shunt`."""

from flows.entry import main

main()
