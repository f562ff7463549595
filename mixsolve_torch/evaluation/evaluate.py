"""How robust classifiers are, alone and mixed, with intervals.

A player is a random classifier (f_k alone, the uniform mixture, the mixture as it was given, the
optimal mixture) or a deterministic ensemble of the classifiers. Each is attacked itself. With J_i
the pool of all candidates found for any player on image i, the clean image among them,

    accuracy of weights lam   =  1 - mean_i max_{j in J_i} sum_k lam_k 1[f_k errs on x_ij],
    accuracy of an ensemble   =  1 - mean_i max_{j in J_i} 1[it errs on x_ij],

the exact expected 0/1 loss. The attacker's set may be the union of several; J_i then holds the
candidates found in all of them, and the accuracy under one set alone takes those that lie in it.
Candidates found for one player count for all of them, which can only
lower an accuracy. They are tried before a player is attacked: an image on which its risk can rise
no further is left out, see `evaluation.sharing`.

The optimal mixture is that of `solve_game`, which begins with the candidates found for the others
and ends when attacks on it gain next to nothing. It is then attacked like the others. By default
its weights are fitted on one half of the images, and all players are measured on the other half.
Where the attacker also chooses the group of images that he strikes, it is the mixture for the worst
group, see `evaluation.by_group`.

References
----------
Meunier et al. Mixed Nash Equilibria in the Adversarial Examples Game. ICML 2021, section 5.
Dbouk, Shanbhag. Adversarial Vulnerability of Randomized Ensembles. ICML 2022.
Gnecco Heredia, Pydi, Meunier, Negrevergne, Chevaleyre. On the Role of Randomization in
Adversarially Robust Classification. NeurIPS 2023.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

import mixsolve
from mixsolve.base.arguments import as_count, as_real, check_flags
from mixsolve.base.errors import MixsolveError
from mixsolve.base.halves import halves
from mixsolve.uncompiled.choice import compiled_alone
from mixsolve_torch.attacks.base import Attack, check_mixture
from mixsolve_torch.attacks.registry import Attacks, resolve_attacks
from mixsolve_torch.attacks.standard import Standard
from mixsolve_torch.attacks.threat_list import Threats, read_threats
from mixsolve_torch.attacks.threats import InBall, Threat
from mixsolve_torch.core.groups import Groups, read_groups
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.data.batching import Data, gather, is_pair
from mixsolve_torch.data.labelled import LabelledImages, to_unit
from mixsolve_torch.evaluation.attacked import AttackedPlayers, as_array
from mixsolve_torch.evaluation.by_group import measure_groups
from mixsolve_torch.evaluation.measured import Settings
from mixsolve_torch.evaluation.players import Player, given_players, rivals
from mixsolve_torch.evaluation.report import Evaluation
from mixsolve_torch.evaluation.work import Work
from mixsolve_torch.evaluation.work import groups as candidate_groups
from mixsolve_torch.game.fitting import fit_weights
from mixsolve_torch.runs.fingerprint import describe, short_digest
from mixsolve_torch.runs.interrupt import explained
from mixsolve_torch.runs.resumable import ResumableFolder, as_folder
from mixsolve_torch.verification.verify import verify as verified_sets


@compiled_alone()
def evaluate(
    mixture: Mixture,
    data: Data,
    attacks: Attacks = "standard",
    *,
    norm: str | None = None,
    eps: float | str | None = None,
    threats: Threats | None = None,
    steps: int | None = None,
    restarts: int | None = None,
    names: Sequence[str] | None = None,
    groups: Any = None,
    held_out: bool = True,
    spare: bool = True,
    verify: bool = False,
    rounds: int = 30,
    tol: float = 0.002,
    resamples: int = 1000,
    level: float = 0.95,
    batch_size: int = 256,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Evaluation:
    """Measure each classifier, their mixtures and their deterministic ensembles under attack.

    The report says which of them is best, and by how much.

    Parameters
    ----------
    mixture : Mixture
        The classifiers, and weights to measure if they are neither uniform nor of one classifier.
    data : pair of torch.Tensor, LabelledImages, Dataset or iterable of batches
        Images (N, C, H, W), floating in [0, 1] or uint8, and labels (N,), what `load_data`
        returns, a torch `Dataset` of (image, label) pairs, or batches. They are read once.
    attacks : str, Attack, callable, or iterable of them, default "standard"
        Names and files as `resolve_attacks` knows them, attacks of one's own, functions, or attack
        objects of other libraries. The parts of "standard" are reported one by one.
    norm, eps, steps, restarts
        Of the attacks given by name, see `solve_game`; `norm` and `eps` also of functions.
    threats : list, optional
        Sets instead of `norm` and `eps`, e.g. ``[("Linf", "8/255"), ("L2", 0.5), ("rotations",
        15)]``, see `resolve_attacks`. Risks are those of the union: for each image the worst
        candidate found in any of the sets. The report shows each alone as well; points count in
        every set that they lie in. Of a finite set all points are tried.
    names : sequence of str of length L, optional
        How the classifiers are called; as the mixture names them, or "classifier 1" and so on, by
        default.
    groups : "class" or array-like of shape (N,), optional
        The attacker also chooses whom he strikes: "class" for the classes of the images, or a label
        for each image. The optimal mixture is then that for the worst group, best classifier and
        advice go by its accuracy, and ``report.by_group`` has the accuracies of all players on each
        group. The game attacks images of groups that can be the worst. How far weights are fitted
        is chosen by halves of the images fitted on, see `by_group.fit`.
    held_out : bool, default True
        Fit the weights, and choose the best single classifier, on half of the images, drawn by
        `seed`, and report on the other half. False does both on all images, which flatters the
        gain, and keeps the candidates themselves, N m times the size of an image, to try them on
        the ensembles of the optimal weights. One classifier is measured on all images.
    spare : bool, default True
        Attack in turn: an attack leaves out the images on which those before it (and the clean
        image) brought the player's expected accuracy to 0. The accuracy reported for an attack is
        then that after it and all before it. Otherwise each attack meets every image and is
        reported alone. The worst case is the same up to the attacks' random draws. The candidates
        found for the players before are tried first: images that they lose are not attacked, and
        count as lost to the first attack. With "standard", and with finite sets, a classifier that
        no attack on it alone fooled on an image counts as one that cannot be fooled there, so that
        mixtures and ensembles are attacked only on images where those that can leave them more
        to lose.
    verify : bool, default False
        Bound each accuracy for every attack in the ball as well, see `mixsolve_torch.verify`: of
        one "Linf" or "L2" ball and ReLU networks. Two columns more: what no attack can break, and
        the rest of the worst case, which is not known.
    rounds : int, default 30
        Rounds of `solve_game` at most, for the optimal mixture.
    tol : float, default 0.002
        How much the last attacks on it may raise its risk.
    resamples : int, default 1000
        Bootstrap resamples of the images.
    level : float, default 0.95
        Coverage that the intervals aim at.
    batch_size : int, default 256
        Images attacked at a time.
    seed : int, default 0
        Of all attacks and of the bootstrap. Global generators are neither read nor seeded.
    out : str or path, optional
        A directory for the finished parts of the work, made if it is missing. Called again with the
        same arguments after an interruption, the evaluation resumes from them; `names`, `rounds`,
        `resamples`, `level` and `progress` may change. Evaluations of other classifiers, images or
        settings have folders of their own in it.
    progress : bool, default False
        Show a progress bar if the work takes more than two seconds and stderr is a terminal.

    Returns
    -------
    Evaluation
        Accuracies with intervals, the ranking, the game's certificate, a table, sentences, a plot,
        JSON, CSV and HTML.

    Raises
    ------
    MixsolveError
        Wrong data or arguments, or a suite without `norm` or `eps`.
    MixsolveTypeError
        Something that is not a mixture, an attack, or data of images and labels.

    Examples
    --------
    >>> import torch
    >>> from mixsolve_torch import PGD, Mixture
    >>> models = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)) for _ in range(2)]
    >>> data = torch.rand(20, 1, 2, 2), torch.arange(20) % 3
    >>> report = evaluate(Mixture(models), data, PGD("Linf", 0.1, steps=3))
    >>> [player.name for player in report.players][:5]
    ['classifier 1', 'classifier 2', 'uniform mixture', 'optimal mixture', 'mean of probabilities']
    """
    check_mixture(mixture)
    classifiers = check_names(names or mixture.names, len(mixture))
    chosen, sets = _resolve(attacks, norm, eps, threats, steps, restarts)
    check_flags(held_out=held_out, spare=spare, verify=verify, progress=progress)
    ball = sets[0].ball if len(sets) == 1 and isinstance(sets[0], InBall) else None
    if verify and (ball is None or ball.norm not in ("Linf", "L2")):
        named = ", ".join(threat.label for threat in sets)
        raise MixsolveError(f"verify needs one ball, Linf or L2; got {named}; leave it out")
    batch_size = as_count("batch_size", batch_size)
    rounds, resamples = as_count("rounds", rounds), as_count("resamples", resamples)
    tol = as_real("tol", tol, at_least=0)
    level = as_real("level", level, above=0, below=1)
    seed = as_count("seed", seed, 0)
    x, y = _whole(data)
    suite = [attack.bind(x) for attack in _parts(chosen)]
    held_out = held_out and len(mixture) > 1
    if held_out and len(x) < 2:
        raise MixsolveError(
            "held_out needs 2 images or more: some to fit on, some to report on; "
            "with held_out=False both are all images"
        )
    grouped = read_groups(groups, y, least=2 if held_out else 1)
    if not held_out:
        fitted = reported = np.arange(len(x))
    elif grouped is None:
        fitted, reported = halves(len(x), seed)
    else:
        fitted, reported = grouped.halves(seed)
    whom = None if grouped is None else grouped.at(fitted)
    parts = _folder(
        out,
        {
            **({} if grouped is None else {"groups": grouped.index}),
            "classifiers": mixture.models,
            "weights": mixture.weights,
            "images": x,
            "labels": y,
            "attacks": suite,
            "spare": spare,
            "held_out": held_out,
            "tol": tol,
            "batch_size": batch_size,
            "seed": seed,
        },
    )
    with closing(parts), explained(parts.kept):
        proven = None
        if verify and ball is not None:
            # Before the attacks, so that a network that cannot be bounded is refused at once.
            proven = verified_sets(
                mixture, _at(x, y, reported), ball.norm, ball.eps, out=parts.path, progress=progress
            ).sets
        work = Work(suite, sets, spare, seed, parts, batch_size, progress)
        keep = len(mixture) > 1 and not held_out
        chosen_on = AttackedPlayers(
            mixture,
            _at(x, y, fitted),
            work,
            keep_inputs=keep,
            purpose=", to fit" if held_out else "",
        )
        for player in given_players(mixture, classifiers):
            chosen_on.add(player)
        shown, optimal, fit = chosen_on, None, None
        extra, value, settled = np.empty((len(fitted), 0, len(mixture)), np.uint8), 0.0, True
        if len(mixture) > 1:
            known = chosen_on.width
            game = chosen_on.solve(rounds, tol, whom)
            extra = as_array(game.losses.values)[:, known:]
            value, settled = game.value, game.converged
            weights = game.weights.cpu().numpy()
            if whom is not None:
                fit = fit_weights(as_array(game.losses.values), whom, seed=seed)
                weights = fit.weights
                value = _risk(as_array(game.losses.values), weights, whom)
            optimal = chosen_on.add(Player("optimal mixture", "optimal", weights))
            ensembles = rivals(mixture.models, weights)
            modules = [player.ensemble for player in ensembles if player.ensemble is not None]
            if game.losses.inputs is not None:
                shown = chosen_on.with_ensembles(modules, game.losses.inputs[:, known:])
            else:
                first = chosen_on.next
                shown = AttackedPlayers(
                    mixture, _at(x, y, reported), work, modules, first=first, purpose=", to report"
                )
                for player in chosen_on.players:
                    shown.add(player)
            for player in ensembles:
                shown.add(player)
    losses = shown.values()
    seen = (
        np.concatenate([chosen_on.values(), extra], axis=1)
        if held_out
        else np.ascontiguousarray(losses[..., : len(mixture)])
    )
    best = min(range(len(mixture)), key=lambda k: _risk(seen, shown.players[k].weights, whom))
    struck: dict[str, Any] = {} if whom is None else {"groups": whom.index}
    solution = mixsolve.solve(seen, names=classifiers, **struck)
    by_group = None
    if grouped is not None and whom is not None:
        by_group = measure_groups(
            losses,
            grouped.at(reported),
            (seen, whom) if held_out else None,
            players=shown.players,
            best=best,
            fit=fit,
            bound=1 - solution.risk_lower_bound,
            resamples=resamples,
            level=level,
            seed=seed,
        )
    return Evaluation.of(
        losses,
        seen,
        players=shown.players,
        within=None if len(sets) == 1 else shown.within(),
        attack_names=list(candidate_groups(suite, sets, 1)),
        best=best,
        solution=solution,
        raised=_risk(seen, optimal.weights, whom) - value if optimal else 0.0,
        settled=settled and solution.success,
        settings=Settings(
            norm=None if ball is None else ball.norm,
            eps=None if ball is None else ball.eps,
            threats=tuple(threat.label for threat in sets),
            exact=tuple(threat.label for threat in sets if threat.exact),
            in_turn=spare,
            tol=tol,
            held_out=held_out,
            resamples=resamples,
            level=level,
            seed=seed,
        ),
        images=reported,
        passes=work.passes,
        proven=proven,
        parts=parts.path,
        by_group=by_group,
    )


def _at(x: Tensor, y: Tensor, places: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return images and labels at some places."""
    rows = torch.from_numpy(places)
    return x[rows.to(x.device)], y[rows.to(y.device)]


def _folder(out: str | os.PathLike[str] | None, settings: dict[str, Any]) -> ResumableFolder:
    """Return where the finished parts go: a folder named after all that they depend on.

        out/evaluation-3f2a91c07b44/
            verification-.../   what is proven, see `verify`
            player-1.npy ...    losses on what the attacks found for a player, see `build_losses`
            game/               the game for the optimal mixture, see `solve_game`

    Evaluations of other things in the same directory have folders of their own.
    """
    if out is None:
        return ResumableFolder("out", None)
    key = short_digest(describe({**settings, "version": mixsolve.__version__}))
    path = as_folder("out", out) / f"evaluation-{key}"
    return ResumableFolder("out", path, f"the evaluation in {out}")


def _risk(values: np.ndarray, weights: np.ndarray, groups: Groups | None) -> float:
    risks = (values @ weights).max(axis=1)
    return float(risks.mean()) if groups is None else groups.risk(risks)


def _resolve(
    attacks: Attacks,
    norm: str | None,
    eps: float | str | None,
    threats: Threats | None,
    steps: int | None,
    restarts: int | None,
) -> tuple[list[Attack], tuple[Threat, ...]]:
    """Return the attacks, and the sets that they are for."""
    if isinstance(attacks, Iterable) and not isinstance(attacks, str):
        attacks = list(attacks)
    given: dict[str, Any] = {"norm": norm, "eps": eps, "steps": steps, "restarts": restarts}
    surplus = [name for name, value in given.items() if value is not None]
    listed = attacks if isinstance(attacks, list) else [attacks]
    if threats is not None:
        sets = read_threats(threats)
        return resolve_attacks(attacks, threats=sets, **given), sets
    suite = resolve_attacks(attacks, **given)
    if surplus and all(isinstance(attack, Attack) for attack in listed):
        raise MixsolveError(
            f"{', '.join(surplus)} must be left out where attacks are objects, which have their own"
        )
    sets = tuple(dict.fromkeys(attack.threat for attack in suite))
    if len(sets) > 1:
        named = ", ".join(sorted({threat.title for threat in sets}))
        raise MixsolveError(
            "attacks must share one norm and radius, which the accuracies are for, unless threats "
            f"names several sets; got {named}"
        )
    return suite, sets


def _parts(suite: Sequence[Attack]) -> list[Attack]:
    """Return the attacks, a suite with the candidates of its parts."""
    return [
        replace(attack, keep_parts=True) if isinstance(attack, Standard) else attack
        for attack in suite
    ]


def check_names(names: Sequence[str] | None, count: int) -> list[str]:
    """Return one name a classifier; they must be different."""
    if names is None:
        return [f"classifier {k + 1}" for k in range(count)]
    if isinstance(names, str) or len(names) != count or len(set(names)) != count:
        raise MixsolveError(
            f"names must be {count} different names, one a classifier; got {names!r}"
        )
    return [str(name) for name in names]


def _whole(data: Data) -> tuple[Tensor, Tensor]:
    """Return all images, floating in [0, 1], and all labels."""
    if is_pair(data):
        return gather((to_unit(data[0]), data[1]))
    if isinstance(data, Iterable) and not isinstance(data, Tensor | LabelledImages):
        data = (_floating(batch) for batch in data)  # one at a time: a loader may reuse its memory
    return gather(data)


def _floating(batch: Any) -> Any:
    """Return a batch with its images in [0, 1]; `gather` refuses what is no batch."""
    if isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[0], Tensor):
        return to_unit(batch[0]), batch[1]
    return batch
