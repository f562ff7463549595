"""Attacks by name, for evaluations and the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch.attacks.apgd import APGD
from mixsolve_torch.attacks.arc import ARC
from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.attacks.pgd import PGD
from mixsolve_torch.attacks.square import Square
from mixsolve_torch.attacks.standard import Standard
from mixsolve_torch.attacks.subset import Subset
from mixsolve_torch.attacks.targeted import TargetedAPGD
from mixsolve_torch.attacks.transfer import TransferPGD
from mixsolve_torch.attacks.uniform import UniformSampling


def _uniform(norm: str, eps: float, *, restarts: int | None = None, **_: Any) -> UniformSampling:
    return (
        UniformSampling(norm, eps)
        if restarts is None
        else UniformSampling(norm, eps, draws=restarts)
    )


ATTACKS: dict[str, Callable[..., Attack]] = {
    "standard": Standard,
    "pgd": PGD,
    "apgd-ce": partial(APGD, loss="cross-entropy"),
    "apgd-dlr": partial(APGD, loss="dlr"),
    "apgd-hinge": partial(APGD, loss="hinge"),
    "apgd-t": TargetedAPGD,
    "arc": ARC,
    "subset": Subset,
    "square": Square,
    "transfer": TransferPGD,
    "uniform": _uniform,
}


def resolve_attacks(
    attacks: str | Attack | Iterable[str | Attack],
    norm: str | None = None,
    eps: float | str | None = None,
    *,
    steps: int | None = None,
    restarts: int | None = None,
) -> list[Attack]:
    """Return attacks from their names; what already is an attack stays as it is.

    Parameters
    ----------
    attacks : str, Attack, or iterable of them
        Names of `ATTACKS`: "standard", "pgd", "apgd-ce", "apgd-dlr", "apgd-hinge", "apgd-t",
        "arc", "subset", "square", "transfer", "uniform"; one string may hold several, separated by
        commas. Or attacks themselves.
    norm : {"Linf", "L2"}, optional
        The norm of the ball; needed by names.
    eps : float or str, optional
        The radius, such as 8 / 255 or "8/255"; needed by names.
    steps : int, optional
        Steps of the attacks that take steps, queries of "square"; each attack's own default if
        left out.
    restarts : int, optional
        Restarts, or draws of "uniform"; each attack's own default if left out.

    Returns
    -------
    list of Attack
        At least one.

    Raises
    ------
    MixsolveError
        A name that is not known, a name without norm and eps, or no attack at all.
    MixsolveTypeError
        Something that is neither a name nor an attack.

    Examples
    --------
    >>> [attack.label(name) for name, attack in zip("ab", resolve_attacks("pgd,uniform", "L2", 1))]
    ['a L2 1', 'b L2 1']
    """
    if isinstance(attacks, str):
        wanted: list[object] = [name.strip() for name in attacks.split(",")]
    elif isinstance(attacks, Attack):
        wanted = [attacks]
    elif isinstance(attacks, Iterable):
        wanted = list(attacks)
    else:
        wanted = [attacks]
    if not wanted:
        raise MixsolveError("attacks must name at least one attack; got none")
    effort = {"steps": steps, "restarts": restarts}
    given = {name: value for name, value in effort.items() if value is not None}
    return [_resolve(attack, norm, eps, given) for attack in wanted]


def _resolve(
    attack: object, norm: str | None, eps: float | str | None, effort: dict[str, int]
) -> Attack:
    if isinstance(attack, Attack):
        return attack
    if not isinstance(attack, str):
        raise MixsolveTypeError(
            "attacks must be names or attacks such as PGD('Linf', 8 / 255); "
            f"got {type(attack).__name__}"
        )
    if attack not in ATTACKS:
        names = ", ".join(repr(name) for name in ATTACKS)
        raise MixsolveError(f"attacks must be among {names}; got {attack!r}")
    if norm is None or eps is None:
        raise MixsolveError(
            f"attack {attack!r} needs norm and eps, e.g. norm='Linf', eps=8 / 255; "
            f"got norm={norm!r}, eps={eps!r}"
        )
    return ATTACKS[attack](norm, eps, **effort)
