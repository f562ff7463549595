"""Signs of gradient masking: gradients of a classifier that vanish, are missing or are not finite.

Where a gradient is exactly zero, or there is none, an attack that follows gradients sees no way
out, and what it finds flatters the mixture. Signs are counted over all gradients that an attack
takes of a classifier and reported once at its end.

References
----------
Athalye, Carlini, Wagner. Obfuscated Gradients Give a False Sense of Security. ICML 2018.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from mixsolve.base.errors import GradientWarning

# A few images whose loss is flat are no sign of masking; a tenth of those still classified
# correctly is more than networks without it show.
VANISHED_SHARE = 0.1

LOGITS = "differences of logits"
NEVER_FLAT = ("dlr", "hinge", LOGITS)  # what is flat only where the logits are


@dataclass
class GradientSigns:
    """What was seen of one classifier's gradients.

    Attributes
    ----------
    taken : int
        Images whose gradient was taken.
    right : int
        Those of them that the classifier got right.
    vanished : int
        Those of `right` whose gradient was exactly zero.
    broken : int
        Images whose gradient was not finite.
    missing : bool
        The classifier's logits do not depend on the images as far as autograd knows.
    """

    taken: int = 0
    right: int = 0
    vanished: int = 0
    broken: int = 0
    missing: bool = False

    def add(self, other: GradientSigns) -> None:
        """Count what another attack has seen of the same classifier."""
        self.taken += other.taken
        self.right += other.right
        self.vanished += other.vanished
        self.broken += other.broken
        self.missing |= other.missing

    @property
    def masked(self) -> bool:
        """Whether gradients vanish on more images than they do without masking."""
        return self.vanished > 0 and self.vanished >= VANISHED_SHARE * self.right

    @property
    def hidden(self) -> bool:
        """Whether gradients vanish wherever the classifier is right."""
        return 0 < self.vanished == self.right


def sentences(signs: Mapping[int, GradientSigns], followed: str) -> list[str]:
    """Return what is to be said of the classifiers, by their numbers in the mixture.

    `followed` is the name of the loss that was differentiated.
    """
    said = []
    for k, own in signs.items():
        if own.broken:
            said.append(
                f"models[{k}] gives gradients with NaN or infinity on "
                f"{own.broken / own.taken:.1%} of the images attacked; the attack took them as "
                "zero and may be weaker than it seems: look for a root or a division at zero, or "
                "overflow (half precision?)"
            )
        if own.missing and own.right:
            said.append(
                f"models[{k}] has no gradient with respect to the images, which was taken as "
                "zero: it rounds, detaches or runs without autograd; use Square or "
                "UniformSampling, which need none, or Standard, which includes Square"
            )
        elif own.masked:
            said.append(
                f"models[{k}] gives a gradient of exactly zero on {own.vanished / own.right:.1%} "
                "of the images that it classifies correctly: the attack sees no way out there, "
                f"and alone it flatters the mixture (gradient masking); {_way_out(followed)}"
            )
    return said


def warn(said: list[str], stacklevel: int) -> None:
    """Give one warning of all sentences, if there are any."""
    if said:
        warnings.warn("\n".join(said), GradientWarning, stacklevel=stacklevel + 1)


def _way_out(followed: str) -> str:
    """Return what to do about gradients of a loss that vanish."""
    if followed in NEVER_FLAT:
        return (
            f"it follows {followed}, which does not saturate, so that the logits themselves are "
            "flat: try float64, smoother activations, or attacks that ask this classifier for no "
            "gradient (Square, transfer from others, UniformSampling)"
        )
    return (
        f"it follows {followed}, which saturates where logits are large: rely on attacks that do "
        "not (APGD with 'hinge' or 'dlr', ARC, Subset), or try float64 or smoother activations"
    )
