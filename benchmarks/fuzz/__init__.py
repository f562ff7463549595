"""Random and degenerate games, solved every way, judged in extended precision."""
