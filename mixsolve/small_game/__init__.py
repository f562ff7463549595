"""Games small enough for dense algebra: an interior point method, crossover and HiGHS."""
