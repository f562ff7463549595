"""The standard attack: one attack after another on the images that still resist, the best kept.

    APGD on the cross-entropy, APGD on the difference of logits ratio, ARC and from its best point
    the climb of `Subset`

in this order, each from the same starts. An image is dropped only when its expected accuracy is 0:
as long as one classifier of the mixture is right, the next attack may fool it too. The strongest
point of an image, by the exact expected 0/1 loss, is the attack, hence never weaker than any of its
parts.

References
----------
Croce, Hein. Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
Parameter-free Attacks. ICML 2020.
Dbouk, Shanbhag. Adversarial Vulnerability of Randomized Ensembles. ICML 2022.
Gnecco Heredia, Pydi, Meunier, Negrevergne, Chevaleyre. On the Role of Randomization in
Adversarially Robust Classification. NeurIPS 2023.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, fields

import torch
from torch import Tensor

from mixsolve_torch.attacks.apgd import APGD
from mixsolve_torch.attacks.members import Members
from mixsolve_torch.attacks.objective import Objective, Score, keep_better
from mixsolve_torch.attacks.search import GradientAttack, SearchAttack, passes
from mixsolve_torch.attacks.subset import Subset
from mixsolve_torch.core.mixture import Mixture

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Standard(GradientAttack):
    """The attacks of the suite in turn; the strongest point of each image is kept.

    On classifiers of two classes, for which the difference of logits ratio is not defined, that
    part is left out.

    Parameters
    ----------
    norm, eps, name
        The options of `Attack`.
    steps : int, default 100
        Steps of each restart of APGD. ARC and the climb, whose steps turn to every classifier, take
        a fifth each.
    restarts, random_start, weights, images_per_pass, autocast, compile
        The options of `GradientAttack`.

    Raises
    ------
    MixsolveError
        A parameter that is out of its range.

    Examples
    --------
    >>> import torch
    >>> from mixsolve_torch import Mixture
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    >>> x, y = torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1])
    >>> Standard("Linf", 0.1, steps=5)(Mixture([model]), x, y).shape
    torch.Size([1, 5, 1, 2, 2])
    """

    _: KW_ONLY
    steps: int = 100

    def names(self, classifiers: int) -> list[str]:
        """Return the one name."""
        return [self.label("standard")]

    def parts(self, classes: int) -> list[SearchAttack]:
        """Return the attacks, in order, on classifiers of so many classes."""
        options = {
            field.name: getattr(self, field.name)
            for field in fields(GradientAttack)
            if field.name != "name"
        }
        attacks: list[SearchAttack] = [APGD(**options)]
        if classes > 2:
            attacks.append(APGD(**options, loss="dlr"))
        else:
            logger.info("standard: APGD-DLR is left out, since it needs at least 3 classes")
        # It begins with ARC.
        attacks.append(Subset(**{**options, "steps": max(1, self.steps // 5)}))
        return attacks

    def generate(
        self, mixture: Mixture, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Yield the strongest point."""
        judge = Objective(Members(mixture, y, self.weights))
        with torch.no_grad():
            classes = mixture.member_logits(x[:1], [0]).shape[-1]
        first_draw = generator.get_state()
        best, best_score = x, self._score(judge, x, y)
        for number, attack in enumerate(self.parts(classes)):
            # The first attack advances the caller's generator, the others repeat its draws.
            draws = generator if number == 0 else torch.Generator(generator.device)
            draws.set_state(first_draw)
            starts = attack.starts(x, draws).unflatten(0, (-1, len(x)))
            resists = (best_score.errors < judge.members.total).nonzero().flatten()
            logger.info("%s: %d of %d images resist", attack.names(1)[0], len(resists), len(x))
            if len(resists) == 0:
                break
            rest, labels = x[resists], y[resists]
            kept = best[resists]
            kept_score = Score(*(part[resists] for part in best_score))
            for point in attack.search(mixture, starts[:, resists].flatten(0, 1), rest, labels)[0]:
                score = self._score(judge, point, labels)
                kept, kept_score = keep_better(kept, kept_score, point, score)
            best = best.index_copy(0, resists, kept)
            best_score = Score(
                *(
                    part.index_copy(0, resists, new)
                    for part, new in zip(best_score, kept_score, strict=True)
                )
            )
        judge.members.check()
        yield best

    def _score(self, judge: Objective, x: Tensor, y: Tensor) -> Score:
        parts = [judge.score(x[rows], y[rows]) for rows in passes(len(x), self.images_per_pass)]
        return Score(*(torch.cat(part) for part in zip(*parts, strict=True)))
