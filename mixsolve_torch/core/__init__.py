"""Mixtures of networks, their expected losses, checks of images and labels."""
