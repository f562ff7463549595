"""Games whose solution is known, games of the literature, and the bounds of the theory."""

from mixsolve.games.game import Game
from mixsolve.games.generators import (
    gamma_game,
    integer_game,
    matrix_game,
    random_matrix_game,
    rock_paper_scissors,
)
from mixsolve.games.paper import line_game, paper2d

__all__ = [
    "Game",
    "gamma_game",
    "integer_game",
    "line_game",
    "matrix_game",
    "paper2d",
    "random_matrix_game",
    "rock_paper_scissors",
]
