"""Certified mixtures of views against patches: what they hold, and what the alternatives do."""
