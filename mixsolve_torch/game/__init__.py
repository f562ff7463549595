"""The double oracle: the game solved and attacked in turn."""
