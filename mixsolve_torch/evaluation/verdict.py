"""The gain of randomising, in a sentence."""

from __future__ import annotations

_NOTHING = 5e-5  # half of the last digit shown


def what_randomising_buys(name: str, alone: float, mixed: float, *, measure: str = "") -> str:
    """Compare the best single classifier with the optimal mixture in one sentence.

    Parameters
    ----------
    name : str
        The best single classifier.
    alone, mixed : float
        Its risk and the mixture's, or the accuracies of both, from 0 to 1.
    measure : str, optional
        "accuracy" where more is better; a risk by default.

    Returns
    -------
    str

    Examples
    --------
    >>> what_randomising_buys("resnet", 0.5, 0.46)
    'Randomising buys 4.00 points: from 50.00 % with the best single classifier (resnet) down to
    46.00 % with the optimal mixture.'
    """
    gain = mixed - alone if measure == "accuracy" else alone - mixed
    if gain < _NOTHING:
        return (
            f"Randomising buys nothing here: {name}, at {100 * alone:.2f} %, is as good as the "
            "optimal mixture."
        )
    way = "up" if measure == "accuracy" else "down"
    return (
        f"Randomising buys {100 * gain:.2f} points: from {100 * alone:.2f} % with the best single "
        f"classifier ({name}) {way} to {100 * mixed:.2f} % with the optimal mixture."
    )
