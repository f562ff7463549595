"""A finite mixture of classifiers: play f_k with probability lam_k, drawn for every image.

The probability of class c is the expectation ``sum_k lam_k softmax(f_k(x))_c``; the module's
forward returns its logarithm. Losses of a mixture are expected losses instead,
see `mixsolve_torch.core.losses.expected_loss`.

References
----------
Meunier, Scetbon, Pinot, Atif, Chevaleyre. Mixed Nash Equilibria in the Adversarial Examples Game.
ICML 2021, section 4.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mixsolve.arrays.labels import check_names
from mixsolve.base.errors import MixsolveError, MixsolveTypeError
from mixsolve_torch.core.export import export
from mixsolve_torch.core.weights import check_weights
from mixsolve_torch.models.classifiers import run_member


class Mixture(nn.Module):
    """A random classifier over `models`, drawn with the probabilities `weights`.

    Parameters
    ----------
    models : iterable of torch.nn.Module, or mapping of str to torch.nn.Module
        L >= 1 classifiers, each mapping images (B, C, H, W) to logits (B, classes). They are held,
        not copied: two mixtures may share their classifiers. A mapping names them:
        ``Mixture({"plain": f, "at": g})``.
    weights : array-like of shape (L,), or mapping of str to float, optional
        Probabilities, non-negative, summing to 1; uniform by default. A mapping has the names of
        the classifiers; those that are left out have the weight 0.
    names : sequence of str, optional
        What the classifiers are called, where `models` is no mapping. Losses, games and evaluations
        take the names from here.

    Attributes
    ----------
    models : torch.nn.ModuleList
        The L classifiers.
    weights : torch.Tensor of shape (L,), float64
        The probabilities, a buffer: it is saved with the module and moves between devices with it.
        It stays float64 when the module changes its dtype, so that an expected 0/1 loss is exact.
    names : tuple of str or None
        What the classifiers are called, where that was said.

    Raises
    ------
    MixsolveError
        No model, or weights that are not L probabilities.
    MixsolveTypeError
        Something among the models that is not a torch.nn.Module.

    Examples
    --------
    >>> import torch
    >>> models = [torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)]
    >>> mixture = Mixture(models, weights=[0.25, 0.75])
    >>> mixture(torch.rand(5, 2)).exp().sum(dim=1).allclose(torch.ones(5))
    True
    """

    weights: Tensor
    names: tuple[str, ...] | None = None

    def __init__(
        self,
        models: Iterable[nn.Module] | Mapping[str, nn.Module],
        weights: Any = None,
        *,
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(models, Mapping):
            if names is not None:
                raise MixsolveError(
                    "names must be left out where models is a mapping, which names them"
                )
            names, models = list(models), models.values()
        members = list(models)
        if not members:
            raise MixsolveError("models must hold at least one classifier; got none")
        for k, model in enumerate(members):
            if not isinstance(model, nn.Module):
                raise MixsolveTypeError(
                    f"models[{k}] must be a torch.nn.Module; got {type(model).__name__}; "
                    "wrap a function, an estimator or a session in BlackBox"
                )
        self.models = nn.ModuleList(members)
        if names is not None:
            self.names = check_names(names, len(members))
        weights = self._by_place(weights)
        if weights is None:
            weights = torch.full((len(members),), 1 / len(members), dtype=torch.float64)
        home = next((p.device for p in self.models.parameters()), torch.device("cpu"))
        self.register_buffer("weights", check_weights(weights, len(members)).to(home))

    def __len__(self) -> int:
        """Return L, the number of classifiers."""
        return len(self.models)

    @property
    def device(self) -> torch.device:
        """The device of the weights, to which images are to be brought."""
        return self.weights.device

    @property
    def named_weights(self) -> dict[Hashable, float]:
        """Probability of each classifier by its name, by its place where there are no names."""
        weights = self.weights.tolist()
        return dict(zip(self.names or range(len(weights)), weights, strict=True))

    def _by_place(self, weights: Any) -> Any:
        """Weights by name in the order of the classifiers; any others as they are."""
        if not isinstance(weights, Mapping):
            return weights
        known: Sequence[Hashable] = self.names or range(len(self.models))
        unknown = [name for name in weights if name not in known]
        if unknown:
            raise MixsolveError(
                f"weights must name classifiers of the mixture, {tuple(known)}; got {unknown[0]!r}"
            )
        return [float(weights.get(name, 0.0)) for name in known]

    def support(self) -> list[int]:
        """Return the classifiers that are played: the indices of the positive weights."""
        return [k for k, weight in enumerate(self.weights.tolist()) if weight > 0]

    def set_weights(self, weights: Any) -> None:
        """Replace the probabilities.

        Parameters
        ----------
        weights : array-like of shape (L,), or mapping of str to float
            Probabilities, non-negative, summing to 1.

        Raises
        ------
        MixsolveError
            Weights that are not L probabilities.
        """
        self.weights.copy_(check_weights(self._by_place(weights), len(self)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logarithm of the expected class probabilities.

        Parameters
        ----------
        x : torch.Tensor of shape (B, C, H, W)
            Images in [0, 1].

        Returns
        -------
        torch.Tensor of shape (B, classes)
            ``log sum_k lam_k softmax(f_k(x))``. Classifiers of weight 0 are not run, but in a
            graph of `torch.export`, `torch.compile` or ONNX, which must hold for other weights.
        """
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self._expected_of_all(x)
        support = self.support()
        log_probabilities = self.member_logits(x, support).log_softmax(dim=-1)
        log_weights = self.weights[support].log().to(log_probabilities.dtype)
        return torch.logsumexp(log_probabilities + log_weights[:, None, None], dim=0)

    def _expected_of_all(self, x: Tensor) -> Tensor:
        """Return what `forward` returns, running classifiers of weight 0 too, as a graph must."""
        log_probabilities = self.member_logits(x).log_softmax(dim=-1)
        log_weights = self.weights.log().to(log_probabilities.dtype)[:, None, None]
        # The output of a classifier of weight 0 does not count, not even a NaN.
        terms = torch.where(log_weights > -torch.inf, log_probabilities + log_weights, -torch.inf)
        return torch.logsumexp(terms, dim=0)

    def member_logits(self, x: Tensor, members: Sequence[int] | None = None) -> Tensor:
        """Return the logits of every classifier, whatever its weight.

        Parameters
        ----------
        x : torch.Tensor of shape (B, C, H, W)
            Images in [0, 1].
        members : sequence of int, optional
            The classifiers to run; all L by default.

        Returns
        -------
        torch.Tensor of shape (L, B, classes)
            One row of logits for each classifier, in the order of `members`.

        Raises
        ------
        MixsolveError
            Classifiers whose outputs are not logits (B, classes) of one and the same shape.
        """
        chosen = range(len(self)) if members is None else members
        outputs: list[Tensor] = []
        for k in chosen:
            outputs.append(run_member(self.models[k], k, x))
            if outputs[-1].shape != outputs[0].shape:
                raise MixsolveError(
                    f"models must agree on their classes; models[{chosen[0]}] returns logits "
                    f"{tuple(outputs[0].shape)}, models[{k}] returns {tuple(outputs[-1].shape)}"
                )
        return torch.stack(outputs)

    @torch.no_grad()
    def predict(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Classify each image with a classifier drawn for it alone, in the mode the module is in.

        Parameters
        ----------
        x : torch.Tensor of shape (B, C, H, W)
            Images in [0, 1].
        generator : torch.Generator, optional
            Source of the draws, on the CPU or on the mixture's device. By default a new one seeded
            by the operating system: an attacker cannot foresee the draws, and PyTorch's global
            generator is left alone.

        Returns
        -------
        torch.Tensor of shape (B,), int64
            The predicted classes.
        """
        if generator is None:
            generator = torch.Generator()
            generator.seed()
        probabilities = self.weights.to(generator.device)
        drawn = torch.multinomial(probabilities, len(x), replacement=True, generator=generator)
        drawn = drawn.to(x.device)
        labels = torch.empty(len(x), dtype=torch.int64, device=x.device)
        for k in drawn.unique().tolist():
            own = drawn == k
            labels[own] = run_member(self.models[k], k, x[own]).argmax(dim=1)
        return labels

    def export(
        self,
        path: str | os.PathLike[str],
        example: Tensor,
        *,
        draw: str = "call",
        seed: int | None = None,
        replace: bool = False,
    ) -> None:
        """Write the mixture as one file, in the format that its name ends in.

        **.pt2**, a program of `torch.export`, and **.onnx**, for ONNX Runtime and others, are
        graphs. They take ``images`` and, if they draw, ``seed``, int64 of shape (1,) and at least
        0, from which the draws follow: give one with each call, from the operating system
        (``secrets.randbits(63)``). Of a draw for the call only that classifier is run.

        **Any other ending** is TorchScript, which PyTorch calls deprecated, but which draws by
        itself: `torch.jit.load`, or libtorch from C++, is all that is needed to run it. Besides the
        forward the file has the methods ``set_seed(seed)``, with None for the operating system's
        randomness; ``draw()``, which returns a classifier's place in the mixture; ``run(k, x)``,
        its logits; ``each(x)``, logits of a classifier drawn for each image; and ``expected(x)``,
        what this module's forward returns. ``members`` and ``weights`` are the classifiers of
        positive weight; others are left out. With the same seed all formats draw the same.

        Parameters
        ----------
        path : path
            The file: .pt2, .onnx, or TorchScript.
        example : torch.Tensor of shape (B, C, H, W)
            Images to trace the classifiers with, on their device. The file takes any number of
            images of that size.
        draw : {"call", "image", "none"}, default "call"
            What the file's forward does: return the logits of one classifier drawn for the call,
            those of a classifier drawn for each image, or the log of the expected probabilities.
        seed : int, optional
            A number from 0 to 2**63 - 1 makes the draws repeatable, the same sequence whenever
            the file is loaded, and predictable for anyone who knows it. By default each draw comes
            from the operating system. Not for graphs, which take one with each call.
        replace : bool, default False
            Whether a file of that name may be overwritten.

        Raises
        ------
        MixsolveError
            A file that is there already or cannot be written, or a classifier that TorchScript
            does not reproduce: the written file is compared with the classifiers on `example`, on
            one image of it and on twice as many, before it is renamed into place. Graphs are
            compared as well, those in ONNX by ONNX Runtime where it is installed.
        MissingDependencyError
            An .onnx file without the packages that write it: ``pip install 'mixsolve[onnx]'``.
        """
        export(self.models, self.weights, path, example, draw=draw, seed=seed, replace=replace)

    def extra_repr(self) -> str:
        """Return the weights, for the module's printed form."""
        if self.names is not None:
            named = zip(self.names, self.weights.tolist(), strict=True)
            return "weights={" + ", ".join(f"{name}: {each:.4g}" for name, each in named) + "}"
        return "weights=[" + ", ".join(f"{weight:.4g}" for weight in self.weights.tolist()) + "]"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Mixture:
        """Move the module, keeping the weights in float64 whatever dtype the classifiers take."""
        exact = self.weights
        super()._apply(fn, recurse)
        if self.weights.dtype != torch.float64:
            self.weights = exact.to(self.weights.device)
        return self
