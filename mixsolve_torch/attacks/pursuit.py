"""Attacks one after another on the images that still resist; the strongest point is kept.

A point is judged by the exact expected 0/1 loss, ties by the expected hinge. An image is dropped
when every classifier errs at its point: its expected accuracy is 0, and no attack can do more. Each
attack has draws of its own, from a seed that is drawn once: they depend neither on which attacks
ran before nor on which images these left.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mixsolve_torch.attacks.masking import GradientSigns, sentences, warn
from mixsolve_torch.attacks.members import Members
from mixsolve_torch.attacks.objective import Objective, Score, keep_better
from mixsolve_torch.attacks.precise import with_gradients
from mixsolve_torch.attacks.search import SearchAttack, passes
from mixsolve_torch.attacks.square import Square
from mixsolve_torch.core.losses import errs
from mixsolve_torch.core.mixture import Mixture

logger = logging.getLogger(__name__)


class Attempt(NamedTuple):
    """What `Pursuit.run` takes."""

    attack: SearchAttack
    on: Tensor | None = None
    from_best: bool = False


class Pursuit:
    """The strongest points found so far on a batch, and what is known of it.

    Parameters
    ----------
    mixture : Mixture
        Frozen.
    x : torch.Tensor of shape (B, C, H, W)
        Images.
    y : torch.Tensor of shape (B,), int64
        True classes.
    generator : torch.Generator
        Gives one seed.
    weights : array-like of shape (L,), optional
        Weights to attack instead of the mixture's own.
    images_per_pass : int
        Images judged in one forward pass.

    Attributes
    ----------
    members : Members
        The classifiers that are played, by which points are judged.
    best : torch.Tensor of shape (B, C, H, W)
        The strongest points.
    score : Score
        Their scores.
    wrong : torch.Tensor of shape (n, B), bool
        Which member errs at them.
    ever : torch.Tensor of shape (n, B), bool
        Which member errs at any point that an attack returned.
    part : torch.Tensor of shape (B, C, H, W)
        The strongest points since `begin`; of an image not attacked since, the best one then.
    classes : int
        Number of classes.
    signs : dict of int to GradientSigns
        What was seen of gradients, by the classifiers' numbers in the mixture.
    """

    def __init__(
        self,
        mixture: Mixture,
        x: Tensor,
        y: Tensor,
        generator: torch.Generator,
        *,
        weights: object = None,
        images_per_pass: int,
    ) -> None:
        self._mixture, self._x, self._y = mixture, x, y
        self._limit = images_per_pass
        self.members = Members(mixture, y, weights)
        self._judge = Objective(self.members, "hinge")
        home = generator.device
        self._seed = int(torch.randint(2**62, (1,), generator=generator, device=home))
        self._home = home
        self._attempts = 0
        self.signs: dict[int, GradientSigns] = {k: GradientSigns() for k in self.members.indices}
        # What gradients are taken of, and which of its classifiers run in double precision.
        self._followed, self._precise = mixture, set[int]()
        self.best = x
        self.score, self.wrong = self._look(x, y)
        self.ever = self.wrong
        self.begin()

    def resisting(self) -> Tensor:
        """Return a mask (B,) of the images on which some member is right at the best point."""
        return self.score.errors < self.members.total

    def begin(self) -> None:
        """Begin a part: `part` is then the best of its own points only."""
        self.part = self.best
        self._part_score = Score(
            torch.full_like(self.score.errors, -1), torch.full_like(self.score.value, -torch.inf)
        )

    def follow_precisely(self) -> bool:
        """Follow classifiers whose gradients vanish in double precision, where that has gradients.

        It is tried at the strongest points of the images that resist. From now on the signs of
        these classifiers are those that are seen in double precision. Returns whether any
        classifier is followed so.
        """
        masked = {k for k, own in self.signs.items() if own.masked} - self._precise
        rows = self.resisting().nonzero().flatten()
        if masked and len(rows):
            self._followed, signs = with_gradients(
                self._followed, sorted(masked), self.best[rows], self._y[rows], self._limit
            )
            self._precise |= signs.keys()
            self.signs |= signs
        return bool(self._precise)

    def run(self, attack: SearchAttack, on: Tensor | None = None, from_best: bool = False) -> None:
        """Attack the images that resist, or those of the mask `on` (B,) among them.

        With `from_best` the only start is the strongest point so far.
        """
        aims, first = attack.aims(), self._attempts + 1
        self._attempts += len(aims)
        resisting = self.resisting()
        rows = (resisting if on is None else resisting & on).nonzero().flatten()
        if len(rows) == 0:
            return
        logger.info("%s: %d of %d images resist", attack.names(1)[0], len(rows), len(self._x))
        labels = self._y[rows]
        if from_best:
            starts = self.best[rows]
        else:
            drawn = [self._starts(own, first + k)[:, rows] for k, own in enumerate(aims)]
            starts = torch.stack(drawn, dim=1).flatten(0, 2)
        for point in self._searched(attack, starts, rows):
            score, wrong = self._look(point, labels)
            now = torch.where(score.beats(self.score.at(rows)), wrong, self.wrong[:, rows])
            self.wrong = self.wrong.index_copy(1, rows, now)
            self.ever = self.ever.index_copy(1, rows, wrong | self.ever[:, rows])
            self.best, self.score = self._kept(self.best, self.score, rows, point, score)
            self.part, self._part_score = self._kept(
                self.part, self._part_score, rows, point, score
            )

    def _starts(self, attack: SearchAttack, attempt: int) -> Tensor:
        """Return the starts (restarts, B, C, H, W) of an attempt on all images."""
        draws = torch.Generator(self._home).manual_seed(self._seed + attempt)
        return attack.starts(self._x, draws).unflatten(0, (-1, len(self._x)))

    def _searched(self, attack: SearchAttack, starts: Tensor, rows: Tensor) -> list[Tensor]:
        """Return the best points from starts, those of gradients on the classifiers followed."""
        x, y = self._x[rows], self._y[rows]
        if not self._precise or isinstance(attack, Square):
            return attack.search(self._mixture, starts, x, y, signs=self.signs)[0]
        found, _ = attack.search(self._followed, starts.double(), x.double(), y, signs=self.signs)
        return [attack.ball.project(points.to(x), x) for points in found]

    def report(self) -> None:
        """Refuse logits that were not finite, and warn of gradients that hid a classifier.

        Warns
        -----
        GradientWarning
            Of classifiers that were right on some image at all points that attacks returned, where
            gradients vanish, are missing or are not finite.
        """
        self.members.check()
        members = zip(self.members.indices, self.ever.all(dim=1).tolist(), strict=True)
        hidden = {k: self.signs[k] for k, fooled in members if not fooled}
        warn(sentences(hidden, "hinge"), stacklevel=4)

    @staticmethod
    def _kept(
        best: Tensor, best_score: Score, rows: Tensor, point: Tensor, score: Score
    ) -> tuple[Tensor, Score]:
        """Return the better points and scores of the whole batch, with new ones for some rows."""
        kept, kept_score = keep_better(best[rows], best_score.at(rows), point, score)
        return best.index_copy(0, rows, kept), best_score.put(rows, kept_score)

    def _look(self, x: Tensor, y: Tensor) -> tuple[Score, Tensor]:
        """Return the score of points, and a mask (n, B) of which member errs there."""
        scores: list[Score] = []
        masks: list[Tensor] = []
        for rows in passes(len(x), self._limit):
            logits = [self.members.logits(i, x[rows]) for i in range(len(self.members))]
            self.classes = logits[0].shape[-1]
            scores.append(self._judge.judge(logits, y[rows]))
            masks.append(torch.stack([errs(own, y[rows]) for own in logits]))
        return _joined(scores), torch.cat(masks, dim=1)


def _joined(scores: Sequence[Score]) -> Score:
    return Score(*(torch.cat(part) for part in zip(*scores, strict=True)))
