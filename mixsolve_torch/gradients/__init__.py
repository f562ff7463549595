"""The optimal value and weights of a game as functions that autograd differentiates."""
