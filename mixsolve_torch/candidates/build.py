"""The loss tensor of a game: every classifier's loss on every attack on every image.

    values[i, j, k] = loss(f_k(x_ij), y_i),    x_i0 = x_i the clean image, x_ij the attack j on it

All L classifiers are evaluated on every candidate, also those of weight zero, since new weights
are found from the tensor.

References
----------
Meunier et al. Mixed Nash Equilibria in the Adversarial Examples Game. ICML 2021, section 4.2.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mixsolve.arrays.compared import Compared
from mixsolve.base.arguments import as_count, check_flags
from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve.base.tuning import tuning
from mixsolve_torch.attacks.base import Attack, check_mixture, default_generator, prepare
from mixsolve_torch.attacks.external import as_attack
from mixsolve_torch.attacks.libraries import is_external
from mixsolve_torch.candidates.disk_store import DiskStore
from mixsolve_torch.candidates.memory_store import MemoryStore
from mixsolve_torch.candidates.recorder import Recorder, Source, clean, source
from mixsolve_torch.core.losses import LossFunction, get_loss
from mixsolve_torch.core.mixture import Mixture
from mixsolve_torch.core.weights import check_weights
from mixsolve_torch.data.batching import Data, in_batches, pair
from mixsolve_torch.models.classifiers import frozen
from mixsolve_torch.models.passes import counted
from mixsolve_torch.runs.fingerprint import describe
from mixsolve_torch.runs.interrupt import explained
from mixsolve_torch.runs.progress import ProgressBar

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class CandidateLosses(Compared):
    """The losses of L classifiers on m attack candidates of N images.

    Attributes
    ----------
    values : torch.Tensor of shape (N, m, L)
        ``values[i, j, k]``, the loss of classifier k on candidate j of image i: uint8 for the 0/1
        loss; float32 for the others, or float64 where the classifiers compute in it. On the device
        of the call, or mapped from a file. `mixsolve.solve` takes it.
    labels : torch.Tensor of shape (N,), int64
        The true classes.
    candidate_names : tuple of str
        The m candidates; the first is "clean", the image itself.
    loss : str
        The name of the loss.
    inputs : torch.Tensor of shape (N, m, C, H, W), or None
        The candidates themselves, where they were kept.
    passes : int
        Forward and backward runs of one classifier on one image that it took to find and to record
        them.
    names : tuple of str or None
        What the classifiers are called, where the mixture says so.
    """

    values: Tensor
    labels: Tensor
    candidate_names: tuple[str, ...]
    loss: str
    inputs: Tensor | None = None
    passes: int = 0
    names: tuple[str, ...] | None = None

    @property
    def __mixsolve_names__(self) -> dict[str, tuple[str, ...]]:
        """What `mixsolve.solve` takes the names of the classifiers from."""
        return {} if self.names is None else {"classifiers": self.names}

    @property
    def __mixsolve_losses__(self) -> Tensor:
        """What `mixsolve.solve` takes in place of the whole."""
        return self.values

    def adversarial_risk(self, weights: Any) -> float:
        """Return the risk of given weights when each image meets its worst candidate.

        Parameters
        ----------
        weights : array-like of shape (L,)
            Probabilities of the classifiers.

        Returns
        -------
        float
            ``mean_i max_j sum_k weights_k values[i, j, k]``, computed in float64.
        """
        return float(self.worst(weights).mean())

    def standard_risk(self, weights: Any) -> float:
        """Return the risk on the clean images, ``mean_i sum_k weights_k values[i, 0, k]``."""
        lam = check_weights(weights, self.values.shape[2]).to(self.values.device)
        return float((self.values[:, 0].to(torch.float64) @ lam).mean())

    def worst(self, weights: Any) -> Tensor:
        """Return the expected loss (N,), float64, of each image's worst candidate."""
        lam = check_weights(weights, self.values.shape[2]).to(self.values.device)
        images = max(1, tuning.risk_entries // max(1, self.values[0].numel()))
        # In parts, since the float64 copy of small integers is eight times their size.
        parts = [(part.to(torch.float64) @ lam).amax(dim=1) for part in self.values.split(images)]
        return torch.cat(parts)


def build_losses(
    mixture: Mixture,
    data: Data,
    attacks: Attack | Callable[..., Any] | Sequence[Attack | Callable[..., Any]],
    loss: str | LossFunction = "zero-one",
    *,
    norm: str | None = None,
    eps: float | str | None = None,
    keep: str = "final",
    batch_size: int = 256,
    generator: torch.Generator | None = None,
    device: str | torch.device | None = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    keep_inputs: bool = False,
    progress: bool = False,
) -> CandidateLosses:
    """Attack every image with every attack and record the losses of all classifiers.

    Where the accelerator's memory does not suffice, the batch is halved from then on, and a warning
    is logged.

    With `out` the values go to a .npy file batch by batch. A call that was interrupted resumes when
    it is repeated, and ends with the same file; one that had finished returns the file at once.
    Data must come in the same order again. A manifest beside the file (``.json``) holds the
    settings: a file begun with other classifiers, weights, attacks, data or draws is refused, and
    so is one that another process is writing. Attributes of a classifier other than its parameters,
    buffers and printed form are not compared.

    Parameters
    ----------
    mixture : Mixture
        The classifiers, and the weights that attacks on the mixture ascend. It is attacked and
        evaluated in eval mode; its own mode is restored.
    data : pair of torch.Tensor, LabelledImages, Dataset or iterable of batches
        Images (N, C, H, W) in [0, 1] and labels (N,), what `load_data` returns, a torch `Dataset`
        of (image, label) pairs, or batches such as a DataLoader's.
    attacks : Attack, callable, or sequence of them
        Where the candidates come from: attacks, functions of images and labels that return images,
        or attack objects of torchattacks, foolbox, ART and AutoAttack, see `External`. The clean
        image always is the first candidate.
    loss : {"zero-one", "cross-entropy", "margin"} or callable, default "zero-one"
        The loss recorded. It need not be the loss that the attacks ascend.
    norm : {"Linf", "L2", "L1"}, optional
        The norm of the set that functions and foreign objects are held against.
    eps : float or str, optional
        Its radius. What an object declares itself need not be given.
    keep : {"final", "trajectory"}, default "final"
        Whether the candidates are the final points of the attacks, or all points they visited.
    batch_size : int, default 256
        Images attacked at a time when `data` is a pair of tensors.
    generator : torch.Generator, optional
        Source of all random draws, by default a new one seeded with 0. One number is drawn from it;
        that number, the batch and the attack give the draws, so that they do not depend on what
        happened in other batches. A batch that memory splits has other draws for every part.
    device : str or torch.device, optional
        Where the values are kept in memory; by default the mixture's device.
    out : str or path, optional
        A .npy file to keep the values in instead. What comes back is mapped from it, and
        `mixsolve solve` takes it.
    overwrite : bool, default False
        Whether a file `out` that this call did not make may be replaced, once the new one is
        complete, and an unfinished one of other settings begun anew. A finished one is made again.
    keep_inputs : bool, default False
        Keep the attacked images as well, e.g. for pictures: N m times the size of an image, on the
        mixture's device, or with `out` in a file beside it (``losses.inputs.npy``).
    progress : bool, default False
        Show a progress bar if the work takes more than two seconds and stderr is a terminal.

    Returns
    -------
    CandidateLosses
        The tensor ``values`` of shape (N, m, L), the names of the m candidates, the labels.

    Raises
    ------
    MixsolveError
        Images outside [0, 1], labels or logits that do not fit, logits that are not finite, data
        without a batch; values that do not fit the device; a file in the way, or one that does not
        belong to this call; a file that cannot be written, on a full disk say.
    MixsolveTypeError
        Something that is not a mixture, an attack, a generator, or data of images and labels.

    Examples
    --------
    >>> import torch
    >>> from mixsolve_torch import Mixture, UniformSampling
    >>> models = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)) for _ in range(2)]
    >>> data = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    >>> losses = build_losses(Mixture(models), data, UniformSampling("L2", 0.5, draws=4))
    >>> losses.values.shape, losses.values.dtype
    (torch.Size([6, 5, 2]), torch.uint8)
    >>> losses.candidate_names[:2]
    ('clean', 'uniform L2 0.5 #1')
    """
    check_mixture(mixture)
    recorded = get_loss(loss)
    chosen = check_attacks(attacks, norm, eps)
    generator = default_generator(generator)
    home = check_device(device, mixture)
    if out is not None and device is not None:
        raise MixsolveError(f"device must be left out with out, a file on disk; got {device!r}")
    if keep not in ("final", "trajectory"):
        raise MixsolveError(f"keep must be 'final' or 'trajectory'; got {keep!r}")
    names = candidate_names(chosen, len(mixture), keep)
    check_flags(overwrite=overwrite, keep_inputs=keep_inputs, progress=progress)
    batch_size = as_count("batch_size", batch_size)
    total, samples, loader = in_batches(data, batch_size)
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    store: MemoryStore | DiskStore
    if out is None:
        kept = MemoryStore(mixture.device, samples) if keep_inputs else None
        store = MemoryStore(home, samples, kept)
    else:
        settings: dict[str, Any] = {
            "candidates": list(names),
            "attacks": describe(chosen),
            "keep": keep,
            "loss": recorded.name,
            "loss function": describe(recorded.function),
            "classifiers": describe(mixture.models),
            "weights": mixture.weights.tolist(),
            "batch_size": batch_size if samples is not None else None,
            "generator": seed,
        }
        if keep_inputs:
            settings["keep_inputs"] = True
        store = DiskStore(out, settings, (len(names), len(mixture)), overwrite)
    labels: list[Tensor] = []
    steps = None if total is None else total * len(names)
    with (
        closing(store),
        explained(store.kept),
        frozen(mixture),
        ProgressBar("Attacking", steps, enabled=progress) as bar,
    ):
        sources = _sources(chosen, len(mixture), keep)
        recorder = Recorder(mixture, sources, recorded, seed, generator.device, bar.advance)
        recorder.together = store.together
        images = 0
        for number, batch in enumerate(loader):
            x, y = prepare(mixture, *pair(batch, number))
            labels.append(y.clone())  # the next batch may come in the same memory
            bound = [attack.bind(x, images) for attack in chosen]
            images += len(x)
            if store.passes_over(x, y):
                bar.advance(len(names))
                continue
            recorder.sources = _sources(bound, len(mixture), keep)
            with counted() as passes:
                rows, points = recorder.record(number, x, y, keep_inputs=keep_inputs)
            store.append(rows, recorder.together, points, passes.total)
        if not labels:
            raise MixsolveError("data must hold at least one batch; got none")
        values = store.finish()
        inputs = store.finish_inputs() if keep_inputs else None
    losses = CandidateLosses(
        values=values,
        labels=torch.cat(labels).to(values.device),
        candidate_names=names,
        loss=recorded.name,
        inputs=inputs,
        passes=store.passes,
        names=mixture.names,
    )
    logger.info("built %s losses of shape %s", losses.loss, tuple(losses.values.shape))
    return losses


def candidate_names(
    attacks: Sequence[Attack], classifiers: int, keep: str = "final"
) -> tuple[str, ...]:
    """Return the names of all candidates, "clean" first; a repeated name gets a number."""
    names = (name for each in _sources(attacks, classifiers, keep) for name in each.names)
    return tuple(unique_names(names))


def unique_names(names: Iterable[str]) -> list[str]:
    """Return different names: a repeated one gets a number, as in "net", "net (2)"."""
    found: dict[str, None] = {}
    for name in names:
        copies, unique = 1, name
        while unique in found:
            copies += 1
            unique = f"{name} ({copies})"
        found[unique] = None
    return list(found)


def _sources(attacks: Sequence[Attack], classifiers: int, keep: str) -> list[Source]:
    return [clean(), *(source(attack, classifiers, keep) for attack in attacks)]


def check_attacks(
    attacks: object, norm: str | None = None, eps: float | str | None = None
) -> list[Attack]:
    """Return attacks as a list, foreign ones as ours, refusing anything else."""
    alone = isinstance(attacks, Attack) or is_external(attacks)
    if isinstance(attacks, str) or not (alone or isinstance(attacks, Iterable)):
        raise MixsolveTypeError(
            "attacks must be an Attack such as PGD('Linf', 8 / 255), or a sequence of them; "
            f"got {attacks!r} of type {type(attacks).__name__}"
        )
    chosen = [attacks] if alone or not isinstance(attacks, Iterable) else list(attacks)
    return [
        attack
        if isinstance(attack, Attack)
        else as_attack(attack, norm, eps, f"attacks[{i}] must be an Attack")
        for i, attack in enumerate(chosen)
    ]


def check_device(device: str | torch.device | None, mixture: Mixture) -> torch.device:
    """Return where the values are kept in memory."""
    if device is None:
        return mixture.device
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise MixsolveError(
            f"device must be a device of PyTorch such as 'cpu' or 'cuda'; got {device!r}"
        ) from error
