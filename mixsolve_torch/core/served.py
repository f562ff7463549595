"""What `Mixture.export` writes: a random classifier in TorchScript that needs no other code.

A draw is u uniform in [0, 1) and the first classifier whose cumulative weight exceeds it.

With a seed, u comes from the counter-based generator Philox4x32-10: draw n is a function of the
seed and of n, the same on every machine. The counter is kept with the module, so that a file saved
after some draws continues from there. Philox is no cipher: the seed determines the draws.

Without a seed, u is made of 53 bits that the operating system gives for this draw alone. There is
no state that could be guessed, copied to another process or forked.

TorchScript compiles this file as it is: a subset of Python, annotations that it can evaluate.

References
----------
Salmon, Moraes, Dror, Shaw. Parallel random numbers: as easy as 1, 2, 3. SC 2011.
"""

import math

import torch
from torch import Tensor, nn


def _product(a: int, b: int) -> tuple[int, int]:
    """Return the high and the low 32 bits of a product; nothing on the way exceeds 63 bits."""
    low = a * (b & 0xFFFF)
    high = a * (b >> 16) + (low >> 16)
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)


def philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Return the four 32-bit words of Philox4x32-10 for a key and a counter of 32-bit words."""
    k0, k1 = key
    c0, c1, c2, c3 = counter
    for _ in range(10):
        high0, low0 = _product(0xD2511F53, c0)
        high1, low1 = _product(0xCD9E8D57, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


class Served(nn.Module):
    """A random classifier over traced networks.

    Parameters
    ----------
    networks : list of torch.jit.ScriptModule
        The classifiers of positive weight.
    members : list of int
        Their places in the mixture.
    weights : list of float
        Their probabilities.
    draw : {"call", "image", "none"}
        What the forward does: one draw a call, one for each image, or expected probabilities.
    """

    members: list[int]
    weights: list[float]
    mode: str
    seed: int
    count: int

    def __init__(
        self, networks: list[nn.Module], members: list[int], weights: list[float], draw: str
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.members = members
        self.weights = weights
        self.mode = draw
        self.seed = -1
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of drawn classifiers, or the log of the expected probabilities."""
        if self.mode == "call":
            return self.run(self.draw(), x)
        if self.mode == "image":
            return self.each(x)
        return self.expected(x)

    @torch.jit.export
    def set_seed(self, seed: int | None) -> None:
        """Start the draws that belong to a seed >= 0, or draw from the operating system (None)."""
        if seed is not None and seed < 0:
            raise ValueError("seed must be at least 0, or None")
        self.seed = -1 if seed is None else seed
        self.count = 0

    @torch.jit.export
    def uniform(self) -> float:
        """Return the next number in [0, 1)."""
        self.count += 1
        if self.seed >= 0:
            words = philox(
                (self.seed & 0xFFFFFFFF, self.seed >> 32),
                (self.count & 0xFFFFFFFF, self.count >> 32, 0, 0),
            )
            bits = ((words[0] >> 5) << 26) | (words[1] >> 6)
        else:
            # `seed()` replaces the given seed by bits of the operating system and returns them. It
            # must be given something that changes: the compiler takes a generator for a pure
            # function, and would draw once, for all time, when the module is compiled.
            bits = torch.Generator(seed=self.count).seed() & 0x1FFFFFFFFFFFFF  # type: ignore[call-arg]
        return bits / 9007199254740992.0

    @torch.jit.export
    def draw(self) -> int:
        """Draw a classifier; return its place in the mixture."""
        u = self.uniform()
        below = 0.0
        for k in range(len(self.members) - 1):
            below += self.weights[k]
            if u < below:
                return self.members[k]
        return self.members[-1]

    @torch.jit.export
    def run(self, member: int, x: Tensor) -> Tensor:
        """Return the logits of one classifier, the only one that is run."""
        place = -1
        for k in range(len(self.members)):
            if self.members[k] == member:
                place = k
        if place < 0:
            raise ValueError("member must be one of those with a positive weight, see .members")
        logits = x
        for k, network in enumerate(self.networks):
            if k == place:
                logits = network(x.clone())  # which may write into it
        return logits

    @torch.jit.export
    def each(self, x: Tensor) -> Tensor:
        """Return for each image the logits of a classifier drawn for it alone."""
        if len(x) == 0:
            return self.run(self.members[0], x)
        drawn: list[int] = []
        for _ in range(len(x)):
            drawn.append(self.draw())
        outputs: list[Tensor] = []
        position = [0] * len(drawn)
        done = 0
        for k, network in enumerate(self.networks):
            own: list[int] = []
            for i in range(len(drawn)):
                if drawn[i] == self.members[k]:
                    position[i] = done + len(own)
                    own.append(i)
            if len(own) > 0:
                outputs.append(network(x.index_select(0, torch.tensor(own, device=x.device))))
                done += len(own)
        return torch.cat(outputs).index_select(0, torch.tensor(position, device=x.device))

    @torch.jit.export
    def expected(self, x: Tensor) -> Tensor:
        """Return the log of the expected class probabilities; all classifiers are run."""
        terms: list[Tensor] = []
        for k, network in enumerate(self.networks):
            terms.append(network(x.clone()).log_softmax(dim=-1) + math.log(self.weights[k]))
        return torch.logsumexp(torch.stack(terms), dim=0)
