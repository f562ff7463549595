"""The subcommands of the command line, one module each, imported when used.

A module has `add_arguments(parser)` and `run(args) -> int`, the exit code.
"""
