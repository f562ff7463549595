"""One round of growing a mixture: train a classifier, compute its reduced cost, attack it.

    q, V      the equilibrium of the held-out images under the present classifiers
    c         sum_ij w_i q_ij loss(f(x_ij), y_i) - V: the value cannot fall by more than -c
    V_before  no weights without f have less, against all candidates found in the end
    V_after   the risk of the new weights, with f, against the same candidates

f is added if V_before - V_after is above the tolerance; where -c is not, nothing is attacked.
"""

from __future__ import annotations

import copy
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import mixsolve
from mixsolve.base.errors import ConvergenceWarning, MixsolveError, MixsolveTypeError
from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.candidates.build import CandidateLosses, build_losses
from mixsolve_torch.core.losses import LossFunction
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.game.solve import GameSolution, solve_game
from mixsolve_torch.growth.folder import GrowRound, Progress
from mixsolve_torch.growth.member import MemberTraining, train_against
from mixsolve_torch.models.classifiers import check_repeatable, frozen
from mixsolve_torch.runs import checkpoint
from mixsolve_torch.runs.resumable import part_or_anew

logger = logging.getLogger(__name__)

_NOT_SETTINGS = ("progress_bar", "games")
_PROBED = 32  # images on which a new classifier must return the same logits twice


@dataclass
class GrowthRounds:
    """The settings of one call, and its rounds."""

    mixture: Mixture
    model: nn.Module | Callable[[int], nn.Module] | None
    train: tuple[Tensor, Tensor]
    held: tuple[Tensor, Tensor]
    attacks: list[Attack]
    loss: str | LossFunction
    alpha: float
    tol: float
    training: MemberTraining
    seed: int
    max_rounds: int
    progress_bar: bool = False
    games: Path | None = None  # the folder of the games of the round under way

    def settings(self) -> dict[str, Any]:
        """Return everything that the rounds depend on."""
        own = {name: value for name, value in vars(self).items() if name not in _NOT_SETTINGS}
        own["mixture"] = [self.mixture.models, self.mixture.weights.tolist()]
        return own

    def make(self, number: int, members: Sequence[nn.Module]) -> nn.Module:
        """Return what the classifier of a round starts as; a copy of one of the first pool."""
        if self.model is None or isinstance(self.model, nn.Module):
            origin = self.model
            if origin is None:
                origin = self.mixture.models[int(self.mixture.weights.argmax())]
            return copy.deepcopy(origin).requires_grad_(True).to(self.mixture.device)
        made = self.model(number)
        if not isinstance(made, nn.Module):
            raise MixsolveTypeError(
                f"model({number}) must return a torch.nn.Module; got {type(made).__name__}"
            )
        known = [*self.mixture.models, *members]
        if any(made is each for each in known):
            raise MixsolveError(
                f"model({number}) must return a new classifier; got one of the mixture, which "
                "training would change; return a copy of it"
            )
        return made.to(self.mixture.device)

    def game(
        self,
        name: str,
        pool: Mixture,
        data: tuple[Tensor, Tensor],
        draws: torch.Generator,
        **options: Any,
    ) -> GameSolution:
        """Attack and solve until attacks find nothing new; the candidates are kept."""
        folder = None if self.games is None else self.games / name

        def solve(_: bool) -> GameSolution:
            return solve_game(
                pool,
                data,
                self.attacks,
                loss=self.loss,
                max_rounds=self.max_rounds,
                generator=draws,
                keep_inputs=True,
                out=folder,
                progress=self.progress_bar,
                **options,
            )

        return part_or_anew(solve, folder, draws)

    def pool(self, members: Sequence[nn.Module], weights: Any = None) -> Mixture:
        """Return the mixture of the classifiers given and some more."""
        names = self.mixture.names
        if names is not None:
            names = (*names, *(f"grown {place + 1}" for place in range(len(members))))
        pool = Mixture([*self.mixture.models, *members], weights, names=names)
        return pool.to(self.mixture.device)

    def begin(self) -> Progress:
        """Solve the game of the held-out images under the classifiers given."""
        draws = torch.Generator().manual_seed(self.seed)
        pool = self.pool([], self.mixture.weights)
        found = self.game("before", pool, self.held, draws)
        return Progress(found.losses, found.weights)

    def round(self, state: Progress) -> None:
        """Train one classifier, and add it if it pays."""
        began, number = time.perf_counter(), len(state.history) + 1
        draws = torch.Generator().manual_seed((self.seed + number) % 2**63)
        member = self.make(number, state.members)
        training_loss = self._trained(member, state, draws)
        with frozen(member):
            images = self.held[0][:_PROBED].to(self.mixture.device)
            check_repeatable(member, f"the classifier of round {number}", images)
        column = self._losses_of(member, state.losses)
        before = mixsolve.solve(state.losses.values)
        played = torch.as_tensor(before.attack.dense(), device=column.device)
        reduced = float((played * column).sum() / len(column)) - before.lower_bound
        after = after_bound = None
        if reduced < -self.tol:
            values = torch.cat([state.losses.values, column.to(state.losses.values)[..., None]], 2)
            found = self.game(
                f"round-{number}-held-out",
                self.pool([*state.members, member]),
                self.held,
                draws,
                start=replace(state.losses, values=values),
            )
            before = mixsolve.solve(found.losses.values[:, :, :-1])
            after, after_bound = found.risk, mixsolve.solve(found.losses.values).lower_bound
        added = after is not None and before.lower_bound - after > self.tol
        if added:
            state.members.append(member)
            state.losses, state.weights = found.losses, found.weights
        state.history.append(
            GrowRound(
                number,
                added,
                before.lower_bound,
                before.risk,
                after,
                after_bound,
                reduced,
                training_loss,
                len(state.losses.candidate_names),
                time.perf_counter() - began,
            )
        )
        logger.info("%s", state.history[-1])

    def _trained(self, member: nn.Module, state: Progress, draws: torch.Generator) -> float:
        """Train a classifier, or read the one that an interrupted call had trained."""
        if self.games is None:
            return self._train(member, state, draws)
        path = self.games / f"round-{len(state.history) + 1}-member.pt"
        if path.exists():
            try:
                known = checkpoint.load(path)
                member.load_state_dict(known["member"])
            except (MixsolveError, RuntimeError, KeyError) as error:
                logger.warning("the classifier is trained anew: %s", error)
            else:
                draws.set_state(known["draws"])
                member.eval()
                return float(known["training_loss"])
        training_loss = self._train(member, state, draws)
        entries = dict(member.state_dict())
        known = {"member": entries, "training_loss": training_loss, "draws": draws.get_state()}
        checkpoint.save(known, path)
        return training_loss

    def _train(self, member: nn.Module, state: Progress, draws: torch.Generator) -> float:
        """Train a classifier against the equilibrium of the training images."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # its candidates suffice
            name = f"round-{len(state.history) + 1}-training"
            pool = self.pool(state.members, state.weights)
            found = self.game(name, pool, self.train, draws)
        solution = mixsolve.solve(found.losses.values, self.alpha, candidate_mask=found.found)
        assert found.losses.inputs is not None
        return self._resumed(
            partial(
                train_against,
                member,
                self.pool(state.members, solution.weights),
                found.losses.inputs,
                found.losses.labels.to(self.mixture.device),
                torch.as_tensor(solution.attack.dense()),
                self.training,
                draws,
            )
        )

    def _resumed(self, train: Callable[..., float]) -> float:
        """Train; resume after the last epoch of an interrupted call."""
        if self.games is None:
            return train()
        path, begun = self.games / "member-under-way.pt", None
        try:
            begun = checkpoint.recover(path)
        except MixsolveError as error:
            logger.warning("the classifier is trained anew: %s", error)

        def save(state: dict[str, Any]) -> None:
            try:
                checkpoint.save(state, path)
            except MixsolveTypeError as error:  # an optimizer whose state cannot be read back
                logger.debug("epochs of the new classifier are not kept: %s", error)

        training_loss = train(begun, save)
        for file in (path, checkpoint.previous(path)):
            file.unlink(missing_ok=True)
        return training_loss

    def _losses_of(self, member: nn.Module, losses: CandidateLosses) -> Tensor:
        """Return the losses (N, m), float64, of one classifier on candidates that were kept."""
        assert losses.inputs is not None
        alone, labels = Mixture([member]).to(self.mixture.device), losses.labels
        columns = [
            build_losses(alone, (losses.inputs[:, j], labels), [], self.loss).values[:, 0, 0]
            for j in range(losses.inputs.shape[1])
        ]
        return torch.stack(columns, dim=1).to(torch.float64)
