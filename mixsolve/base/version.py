"""The version, which the package, its build and the command line read."""

__version__ = "0.2.0"
