"""Games whose answer is known, or that others have solved, and bounds on what they promise."""

from mixsolve.games.generators import (
    Game,
    gamma_game,
    integer_game,
    line_game,
    matrix_game,
    paper2d,
    random_matrix_game,
    rock_paper_scissors,
)

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
