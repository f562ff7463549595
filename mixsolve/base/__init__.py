"""Errors, checks of arguments, threads, files and compilation: what every floor stands on."""
