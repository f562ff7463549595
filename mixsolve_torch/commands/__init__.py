"""Subcommands of the command line that need PyTorch."""
