"""One file for each group of subcommands of `shunt`.

Belongs here: options, their help, what is printed and the exit code. Does not: work that another
entry point could ask for.
"""
