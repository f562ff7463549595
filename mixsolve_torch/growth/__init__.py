"""A pool that grows: classifiers trained against the attacker's equilibrium strategy."""
