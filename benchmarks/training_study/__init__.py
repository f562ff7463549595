"""Whether mixtures pay: every way to train them, on real images, under three measures."""
