"""Growing a mixture: classifiers trained against the attacker's equilibrium, added if they pay.

The double oracle method on the classifiers' side. With q the attacker's optimal strategy against
the present classifiers and V the value, a new classifier f has the reduced cost

    c = sum_ij w_i q_ij loss(f(x_ij), y_i) - V,

and the value with f is at least V + min(c, 0), since the attacker can still play q. So f is trained
to make c small (`mixsolve_torch.growth.member`), and one with c >= 0 cannot pay. If c < 0, the new
mixture is attacked: f is added if the value falls for certain, on images that it was not trained
on, against all candidates found for the old mixture and the new one.

References
----------
McMahan, Gordon, Blum. Planning in the Presence of Cost Functions Controlled by an Adversary.
ICML 2003.
Demiriz, Bennett, Shawe-Taylor. Linear Programming Boosting via Column Generation. Machine Learning
46, 2002.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mixsolve.base.arguments import as_count, as_real, check_flags
from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve.uncompiled.choice import compiled_alone
from mixsolve_torch.attacks.base import Attack, check_mixture, default_generator
from mixsolve_torch.attacks.external import as_attack
from mixsolve_torch.attacks.registry import Attacks, resolve_attacks
from mixsolve_torch.attacks.strongest import strongest
from mixsolve_torch.attacks.threat_list import Threats, read_threats
from mixsolve_torch.attacks.threats import Union
from mixsolve_torch.candidates.build import CandidateLosses
from mixsolve_torch.core.losses import LossFunction, get_loss
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.data.arrays import count_shared
from mixsolve_torch.data.batching import Data, gather
from mixsolve_torch.growth.folder import GrowRound, GrowthFolder, Progress
from mixsolve_torch.growth.member import MemberTraining, OptimizerFactory, adam
from mixsolve_torch.growth.round import GrowthRounds
from mixsolve_torch.runs.fingerprint import describe
from mixsolve_torch.runs.interrupt import explained
from mixsolve_torch.runs.resumable import as_folder

_TRAINING_STEPS = 5  # of the fresh attacks in training, unless another attack is given


@dataclass(frozen=True)
class Growth:
    """A grown mixture, and the gain of its new classifiers.

    Attributes
    ----------
    mixture : Mixture
        The classifiers given, which it shares, and those added, with the optimal weights of the
        held-out images.
    added : int
        How many were added.
    before, after : float
        The value before the first round and after the last, against the candidates of the round in
        question: a lower bound for the one, the risk of `mixture` for the other.
    history : tuple of GrowRound
        The rounds; the last one may have added nothing.
    losses : CandidateLosses
        The game of the held-out images under the classifiers of `mixture`, candidates included.
    message : str
        How it ended, in words.
    """

    mixture: Mixture = field(repr=False)
    added: int
    before: float
    after: float
    history: tuple[GrowRound, ...]
    losses: CandidateLosses = field(repr=False)
    message: str


@compiled_alone()
def grow(
    mixture: Mixture,
    data: Data,
    attacks: Attacks = "standard",
    model: nn.Module | Callable[[int], nn.Module] | None = None,
    *,
    held_out: Data | float = 0.3,
    norm: str | None = None,
    eps: float | str | None = None,
    threats: Threats | None = None,
    steps: int | None = None,
    restarts: int | None = None,
    loss: str | LossFunction = "zero-one",
    alpha: float = 0.0,
    rounds: int = 1,
    tol: float = 5e-3,
    epochs: int = 10,
    batch_size: int = 64,
    optimizer: OptimizerFactory = adam,
    training_attack: Attack | Callable[..., Any] | None = None,
    fresh: float = 0.5,
    max_rounds: int = 30,
    generator: torch.Generator | None = None,
    folder: str | os.PathLike[str] | None = None,
    callback: Callable[[GrowRound], object] | None = None,
    progress: bool = False,
) -> Growth:
    """Train classifiers against the attacker's equilibrium strategy and add those that pay.

    Each round solves the game of the training images (`solve_game`), trains a new classifier on
    candidates drawn from the attacker's optimal strategy, one half of each batch attacked afresh,
    and solves the game of the held-out images with it and without it. It is added if the value
    falls by more than `tol` for certain, and the first that does not ends the rounds. For certain:
    on these images, against all candidates that the attacks found; other images and other attacks
    may give less. The weights are chosen on the held-out images as well, which flatters them a
    little; use other images again to report.

    Parameters
    ----------
    mixture : Mixture
        The classifiers to begin with. It is left as it is.
    data : pair of torch.Tensor, LabelledImages, Dataset or iterable of batches
        Images and labels to train on, as `solve_game` takes them; their candidates stay in memory.
    attacks : str, Attack, callable, or iterable of them, default "standard"
        Attacks that play the games, see `solve_game`. `Given` points are for the images of `data`;
        where `held_out` holds others, give both as its `images`.
    model : torch.nn.Module or callable, optional
        What a new classifier starts as: a copy of this one, or what ``model(round)`` returns, with
        rounds counted from 1. By default a copy of the classifier of the largest weight.
    held_out : data like the above, or float, default 0.3
        Images that classifiers are added on, or the share of `data` to keep for that.
    norm, eps, threats, steps, restarts
        The attacker's set, and the effort of the attacks given by name, see `solve_game`.
    loss : {"zero-one", "cross-entropy", "margin"} or callable, default "zero-one"
        The loss of the games. Classifiers are trained with the cross-entropy whatever it is.
    alpha : float, default 0
        Entropic regularisation of the strategy that is trained against: a positive one spreads it
        over more candidates. What decides is the exact risk.
    rounds : int, default 1
        Classifiers to try at most.
    tol : float, default 5e-3
        How much the value must fall, in the unit of the loss.
    epochs, batch_size : int, default 10 and 64
        Training of a classifier.
    optimizer : callable, optional
        Makes an optimizer of parameters; by default Adam with the learning rate 3e-3. The rate
        falls to zero along a cosine.
    training_attack : Attack or callable, optional
        The fresh attack of training; by default PGD with 5 steps in the ball of the first attack.
        With `threats`, that in every ball and all points of finite sets, and of these the strongest
        for each image (`WorstOf`).
    fresh : float, default 0.5
        Share of each batch that is attacked afresh, on the mixture with the new classifier.
    max_rounds : int, default 30
        Of each `solve_game`. On the training images a game that has not converged will do.
    generator : torch.Generator, optional
        Source of all random draws, by default a new one seeded with 0. One number is drawn from it,
        which gives the draws of every round.
    folder : str or path, optional
        A folder for the rounds so far (``grow.pt``, the candidates of the held-out images included)
        and for the games of the round under way. The same call, repeated after an interruption,
        resumes there, in the training of a classifier after its last complete epoch. `rounds` may
        change.
    callback : callable, optional
        Called with each `GrowRound`; a true return value ends the rounds.
    progress : bool, default False
        Show a progress bar for each run of the attacks that takes more than two seconds.

    Returns
    -------
    Growth
        The mixture, its value before and after with the bounds of every round.

    Raises
    ------
    MixsolveError
        Wrong data or arguments, a training that diverged, or a folder of another call.
    MixsolveTypeError
        Something that is not a mixture, a classifier, an attack, a generator, or data.

    Warns
    -----
    ConvergenceWarning
        A game of the held-out images did not converge within `max_rounds`.

    Examples
    --------
    A classifier of the first pixel alone can be fooled on every image:

    >>> import torch
    >>> from mixsolve_torch import Mixture, PGD
    >>> y = torch.arange(60) % 2
    >>> x = 0.5 + (y[:, None] - 0.5) * torch.tensor([0.1, 0.8])
    >>> short_sighted = torch.nn.Linear(2, 2)
    >>> short_sighted.weight.data = torch.tensor([[-9.0, 0.0], [9.0, 0.0]])
    >>> short_sighted.bias.data = torch.tensor([4.5, -4.5])
    >>> pool = Mixture([torch.nn.Sequential(torch.nn.Flatten(), short_sighted)])
    >>> attack = PGD("Linf", 0.1, steps=3)
    >>> data = x.reshape(-1, 1, 1, 2), y
    >>> growth = grow(pool, data, attack, optimizer=lambda p: torch.optim.Adam(p, lr=0.3))
    >>> growth.added, round(growth.before, 3), round(growth.after, 3)
    (1, 1.0, 0.0)
    """
    check_mixture(mixture)
    check_flags(progress=progress)
    rounds = as_count("rounds", rounds)
    tol = as_real("tol", tol, at_least=0)
    alpha = as_real("alpha", alpha, at_least=0)
    max_rounds = as_count("max_rounds", max_rounds)
    get_loss(loss)
    chosen = resolve_attacks(attacks, norm, eps, threats=threats, steps=steps, restarts=restarts)
    first = chosen[0].threat
    own = [*first.threats] if isinstance(first, Union) else [first]
    sets = own if threats is None else list(read_threats(threats))
    if training_attack is None:
        fresh_attacks = resolve_attacks("pgd", threats=sets, steps=_TRAINING_STEPS)
        training_attack = strongest(fresh_attacks)
    elif not isinstance(training_attack, Attack):
        training_attack = as_attack(
            training_attack, None, None, "training_attack must be an Attack", threats=sets
        )
    if model is not None and not callable(model):
        raise MixsolveTypeError(
            "model must be a torch.nn.Module, or a function of the round that returns one; got "
            f"{type(model).__name__}"
        )
    for name, function in (("optimizer", optimizer), ("callback", callback)):
        if function is not None and not callable(function):
            raise MixsolveTypeError(f"{name} must be a function; got {type(function).__name__}")
    training = MemberTraining(
        as_count("epochs", epochs),
        as_count("batch_size", batch_size),
        optimizer,
        training_attack,
        as_real("fresh", fresh, at_least=0, at_most=1),
    )
    generator = default_generator(generator)
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    x, y = gather(data)
    growing = GrowthRounds(
        mixture,
        model,
        *_split((x, y), held_out, seed),
        [attack.bind(x) for attack in chosen],
        loss,
        alpha,
        tol,
        training,
        seed,
        max_rounds,
        progress_bar=progress,
    )
    path = None if folder is None else as_folder("folder", folder)
    kept = GrowthFolder(path, None if path is None else describe(growing.settings()))
    growing.games = kept.games
    stopped = False
    with closing(kept), explained(kept.kept):
        state = kept.load(growing.make, mixture.device)
        if state is None:
            state = growing.begin()
        while not (state.ended or stopped) and len(state.history) < rounds:
            growing.round(state)
            kept.save(state)
            stopped = callback is not None and bool(callback(state.history[-1]))
    return _ended(growing, state, stopped)


def _ended(growing: GrowthRounds, state: Progress, stopped: bool) -> Growth:
    risk = state.losses.adversarial_risk(state.weights)
    before = state.history[0].before
    last = state.history[-1]
    if not last.added:
        why = (
            "its reduced cost shows that it cannot"
            if last.after is None
            else (f"the value falls by {last.gain:.3g}")
        )
        end = f"the classifier of round {last.number} does not pay by tol={growing.tol:g}: {why}"
    elif stopped:
        end = f"the callback ended it after round {last.number}"
    else:
        end = f"all {last.number} rounds were used; more may pay"
    return Growth(
        mixture=growing.pool(state.members, state.weights),
        added=len(state.members),
        before=before,
        after=risk,
        history=tuple(state.history),
        losses=state.losses,
        message=f"{len(state.members)} classifiers added; {end}",
    )


def _split(
    data: tuple[Tensor, Tensor], held_out: Data | float, seed: int
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the images trained on and those held out."""
    x, y = data
    if isinstance(held_out, int | float):
        share = as_real("held_out", held_out, above=0, below=1)
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
        count = round(share * len(y))
        if not 0 < count < len(y):
            raise MixsolveError(
                f"held_out={share:g} of {len(y)} images leaves none to train on or to hold out"
            )
        held, kept = order[:count].to(x.device), order[count:].to(x.device)
        return (x[kept], y[kept]), (x[held], y[held])
    held_x, held_y = gather(held_out)
    if held_x.shape[1:] == x.shape[1:] and count_shared(x, held_x) == len(held_x):
        raise MixsolveError(
            f"held_out must hold images that are not trained on; all {len(held_x)} stand in data: "
            "give others, or the share of data to keep for that"
        )
    return (x, y), (held_x, held_y)
