"""Attacks by name, for evaluations and the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.attacks.apgd import APGD
from mixsolve_torch.attacks.arc import ARC
from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.attacks.external import as_attack
from mixsolve_torch.attacks.given import SUFFIXES, Given
from mixsolve_torch.attacks.libraries import is_external
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


# What functions of this package take as attacks.
OneAttack = str | Attack | Callable[..., Any]
Attacks = OneAttack | Iterable[OneAttack]


def resolve_attacks(
    attacks: Attacks,
    norm: str | None = None,
    eps: float | str | None = None,
    *,
    steps: int | None = None,
    restarts: int | None = None,
) -> list[Attack]:
    """Return attacks from names, files, functions and objects; an `Attack` stays as it is.

    Parameters
    ----------
    attacks : str, Attack, callable, or iterable of them
        Names of `ATTACKS`: "standard", "pgd", "apgd-ce", "apgd-dlr", "apgd-hinge", "apgd-t",
        "arc", "subset", "square", "transfer", "uniform", or .npy and .npz files for `Given`; one
        string may hold several, separated by commas. Attacks themselves. Functions of images and
        labels that return images, and attack objects of torchattacks, foolbox, ART and AutoAttack,
        see `External`.
    norm : {"Linf", "L2", "L1"}, optional
        The norm of the ball; needed by names, files, functions, and objects that declare none.
    eps : float or str, optional
        The radius, such as 8 / 255 or "8/255"; needed by the same.
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
        A name that is not known, what needs norm and eps without them, or no attack at all.
    MixsolveTypeError
        Something that is neither a name nor an attack, a class for example.

    Examples
    --------
    >>> [attack.label(name) for name, attack in zip("ab", resolve_attacks("pgd,uniform", "L2", 1))]
    ['a L2 1', 'b L2 1']
    """
    if isinstance(attacks, str):
        wanted: list[object] = [name.strip() for name in attacks.split(",")]
    elif isinstance(attacks, Attack) or is_external(attacks):
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
        return as_attack(attack, norm, eps)
    from_file = attack.endswith(SUFFIXES)
    if attack not in ATTACKS and not from_file:
        names = ", ".join(repr(name) for name in ATTACKS)
        raise MixsolveError(
            f"attacks must be among {names}, or a .npy or .npz file of adversarial images; "
            f"got {attack!r}"
        )
    if norm is None or eps is None:
        raise MixsolveError(
            f"attack {attack!r} needs norm and eps, e.g. norm='Linf', eps=8 / 255; "
            f"got norm={norm!r}, eps={eps!r}"
        )
    if from_file:
        return Given(attack, norm=norm, eps=eps)
    return ATTACKS[attack](norm, eps, **effort)
