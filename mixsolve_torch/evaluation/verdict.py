"""Which player is best, what to deploy, and the gain of randomising, in sentences.

One classifier alone is the simplest to deploy. Something else is recommended only where its lead
over the best single classifier is more than the luck of the images: the interval of the paired
differences lies above 0. The verdict of a training run has the same rule.
"""

from __future__ import annotations

from collections.abc import Sequence

from mixsolve_torch.evaluation.bootstrap import Estimate
from mixsolve_torch.evaluation.measured import Place

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


def to_deploy(ranking: Sequence[Place], gain: Estimate) -> Place:
    """Return the contender to deploy.

    Parameters
    ----------
    ranking : sequence of Place
        The contenders, the best first; at least two.
    gain : Estimate
        The lead of the optimal mixture over the best single classifier.
    """
    alone = next(place for place in ranking if place.row.kind == "single")
    if alone.behind.low > 0:
        return ranking[0]
    return next((p for p in ranking if p.row.kind == "optimal" and gain.low > 0), alone)


def who_is_best(ranking: Sequence[Place], level: float, advised: Place | None = None) -> str:
    """Say who is best, by how much it leads, and what to deploy.

    Parameters
    ----------
    ranking : sequence of Place
        The contenders, the best first; at least two.
    level : float
        Coverage of the intervals, from 0 to 1.
    advised : Place, optional
        The one to deploy; without it nothing is advised.

    Returns
    -------
    str
    """
    first, *others = ranking
    second = others[0]
    row, lead = first.row, second.behind
    best = f"{_called(first)} is best, at {100 * row.worst.value:.2f} %"
    points = (
        f"{100 * lead.value:.2f} points ahead of {_called(second)} (paired {100 * level:g} % "
        f"interval {100 * lead.low:.2f} to {100 * lead.high:.2f})"
    )
    if lead.value < _NOTHING:
        text = f"{best}; {_called(second)} has the same accuracy."
    elif lead.low > 0:
        text = f"{best}: {points}."
    else:
        text = f"{best}, but not surely: {points}; these images do not tell them apart."
    text = text[0].upper() + text[1:]
    behind = ", ".join(
        f"{_called(place)} by {100 * place.behind.value:.2f} "
        f"[{100 * place.behind.low:.2f}, {100 * place.behind.high:.2f}]"
        for place in others[1:]
    )
    if behind:
        text += f" Further behind, in points: {behind}."
    return text if advised is None else f"{_advice(advised, first)} {text}"


def _advice(advised: Place, first: Place) -> str:
    kind = advised.row.kind
    if kind == "single" and advised is not first:
        return f"Deploy one classifier alone, {advised.row.name}: no gain over it is sure."
    if kind == "single":
        return "Deploy one classifier alone."
    if kind == "ensemble":
        return "Do not randomise: combine the classifiers' outputs."
    return "Randomise."


def _called(place: Place) -> str:
    row = place.row
    titles = {"single": "the best single classifier", "ensemble": "the best ensemble"}
    return f"{titles[row.kind]} ({row.name})" if row.kind in titles else f"the {row.name}"
