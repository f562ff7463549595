"""Engines: the only code that touches the tensor, one for each place it can live."""
