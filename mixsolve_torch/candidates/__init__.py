"""Tensors of losses from attacks on networks."""
