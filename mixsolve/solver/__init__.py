"""From arguments to a certified solution: request, solve, certificate."""
