"""Sets of pixels in the attacker's reach, and classifiers that read part of an image."""
