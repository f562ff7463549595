"""Attacks by name, for evaluations and the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.attacks.apgd import APGD
from mixsolve_torch.attacks.arc import ARC
from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.attacks.exhaustive import Exhaustive
from mixsolve_torch.attacks.external import as_attack
from mixsolve_torch.attacks.fab import FAB
from mixsolve_torch.attacks.given import SUFFIXES, Given
from mixsolve_torch.attacks.libraries import declared_threat, is_external, kind_of
from mixsolve_torch.attacks.pgd import PGD
from mixsolve_torch.attacks.square import Square
from mixsolve_torch.attacks.standard import Standard
from mixsolve_torch.attacks.subset import Subset
from mixsolve_torch.attacks.targeted import TargetedAPGD
from mixsolve_torch.attacks.threat_list import Threats, read_alone
from mixsolve_torch.attacks.threats import Finite, InBall, Threat, Union
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
    "fab": FAB,
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
    threats: Threats | None = None,
    steps: int | None = None,
    restarts: int | None = None,
) -> list[Attack]:
    """Return attacks from names, files, functions and objects; an `Attack` stays as it is.

    Parameters
    ----------
    attacks : str, Attack, callable, or iterable of them
        Names of `ATTACKS`: "standard", "pgd", "apgd-ce", "apgd-dlr", "apgd-hinge", "apgd-t",
        "arc", "subset", "fab", "square", "transfer", "uniform", or .npy and .npz files for
        `Given`; one string may hold several, separated by commas. Attacks themselves. Functions of
        images and labels that return images, and attack objects of torchattacks, foolbox, ART and
        AutoAttack, see `External`.
    norm : {"Linf", "L2", "L1"}, optional
        The norm of the ball; needed by names, files, functions, and objects that declare none.
    eps : float or str, optional
        The radius, such as 8 / 255 or "8/255"; needed by the same.
    threats : list, optional
        Sets instead of `norm` and `eps`, as `read_threats` takes them, e.g. ``[("Linf", "8/255"),
        ("L2", 0.5), ("rotations", 15)]``. Names are attacks in each of the balls; of a finite set
        all points are tried; an attack object is for the ball that it declares; functions and
        files are held against the union. `attacks` may also be a list of as many lists as there
        are sets, the attacks of each (an empty one for a finite set).
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
    wanted = _listed(attacks)
    effort = {"steps": steps, "restarts": restarts}
    given = {name: value for name, value in effort.items() if value is not None}
    if threats is not None:
        return _under(read_alone(threats, norm, eps), wanted, given)
    if not wanted:
        raise MixsolveError("attacks must name at least one attack; got none")
    return [_resolve(attack, norm, eps, given) for attack in wanted]


def _listed(attacks: object) -> list[object]:
    """Return attacks as a list, names that stand in one string apart."""
    if isinstance(attacks, str):
        return [name.strip() for name in attacks.split(",")]
    if isinstance(attacks, Attack) or is_external(attacks) or not isinstance(attacks, Iterable):
        return [attacks]
    return list(attacks)


def _under(
    threats: Sequence[Threat], wanted: Sequence[object], effort: dict[str, int]
) -> list[Attack]:
    """Return the attacks of each threat, in the order of the threats, then those of the union."""
    apart = any(isinstance(entry, list | tuple) for entry in wanted)
    if apart and len(wanted) != len(threats):
        raise MixsolveError(
            f"attacks must be a list for each of the {len(threats)} threats, or one list for all; "
            f"got {len(wanted)} entries"
        )
    found: dict[Threat, list[Attack]] = {threat: [] for threat in threats}
    everywhere: dict[int, Attack] = {}
    for threat, own in zip(threats, wanted if apart else [wanted] * len(threats), strict=True):
        if isinstance(threat, Finite):
            found[threat].append(Exhaustive(threat))
        for entry in _listed(own):
            if apart and isinstance(entry, str) and isinstance(threat, Finite):
                raise MixsolveError(
                    f"all points of {threat.label} are tried, so that its list of attacks must be "
                    f"empty; got {entry!r}"
                )
            for attack in _in(threat, threats, entry, effort):
                if attack.threat == threat:
                    found[threat].append(attack)
                elif attack.threat not in found:
                    everywhere[id(entry)] = attack
                elif apart:
                    raise MixsolveError(
                        f"the attacks listed for {threat.label} must be for that set; got one for "
                        f"{attack.threat.label}"
                    )
    lacking = next((threat for threat, attacks in found.items() if not attacks), None)
    if lacking is not None and not everywhere:
        raise MixsolveError(
            f"attacks must hold one in {lacking.label} at least; got none; add a name such as "
            "'standard', or leave the threat out"
        )
    return [*(attack for attacks in found.values() for attack in attacks), *everywhere.values()]


def _in(
    threat: Threat, threats: Sequence[Threat], entry: object, effort: dict[str, int]
) -> list[Attack]:
    """Return what an entry of a list of attacks gives for one of the threats."""
    if isinstance(entry, Attack):
        return [_declared_in(threats, entry)]
    if isinstance(entry, str):
        _known_name(entry)
        if entry not in ATTACKS:
            return [Given(entry, threats=list(threats))]
        if not isinstance(threat, InBall):
            return []
        return [_resolve(entry, threat.ball.norm, threat.ball.eps, effort)]
    norm, eps = declared_threat(entry)
    if (norm is None and eps is None) or not is_external(entry):
        return [as_attack(entry, None, None, threats=list(threats))]
    if norm is not None and eps is not None:
        return [_declared_in(threats, as_attack(entry, None, None))]
    balls = [own.ball for own in threats if isinstance(own, InBall)]
    made = {InBall(ball): as_attack(entry, norm or ball.norm, eps or ball.eps) for ball in balls}
    fitting = [own for ball, own in made.items() if own.threat == ball]
    if not fitting:
        raise MixsolveError(
            f"{kind_of(entry)} declares norm={norm!r}, eps={eps!r}, which none of the threats has: "
            f"{', '.join(own.label for own in threats)}"
        )
    return [own for own in fitting if own.threat == threat]


def _declared_in(threats: Sequence[Threat], attack: Attack) -> Attack:
    """Return an attack object if its set is one of the threats, or the union of some."""
    own = attack.threat
    parts = own.threats if isinstance(own, Union) else (own,)
    if any(part not in threats for part in parts):
        raise MixsolveError(
            "attack objects must be for one of the threats, "
            f"{', '.join(each.label for each in threats)}; got one for {own.label}; add that "
            "threat, or give the attack another set"
        )
    return attack


def _known_name(attack: object) -> None:
    """Refuse a text that names neither an attack nor a file."""
    if isinstance(attack, str) and attack not in ATTACKS and not attack.endswith(SUFFIXES):
        names = ", ".join(repr(name) for name in ATTACKS)
        raise MixsolveError(
            f"attacks must be among {names}, or a .npy or .npz file of adversarial images; "
            f"got {attack!r}"
        )


def _resolve(
    attack: object, norm: str | None, eps: float | str | None, effort: dict[str, int]
) -> Attack:
    if isinstance(attack, Attack):
        return attack
    if not isinstance(attack, str):
        return as_attack(attack, norm, eps)
    _known_name(attack)
    if norm is None or eps is None:
        raise MixsolveError(
            f"attack {attack!r} needs norm and eps, e.g. norm='Linf', eps=8 / 255; "
            f"got norm={norm!r}, eps={eps!r}"
        )
    if attack.endswith(SUFFIXES) and attack not in ATTACKS:
        return Given(attack, norm=norm, eps=eps)
    return ATTACKS[attack](norm, eps, **effort)
