"""`last.pt` of a run: everything that the next step depends on, written by all ranks together.

Networks that are not finite are refused before anything is written, so that the last checkpoint is
always one to resume from.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from mixsolve.base.errors import MixsolveError
from mixsolve_torch.training.config import TrainConfig
from mixsolve_torch.training.ranks import Ranks
from mixsolve_torch.training.run_folder import RunFolder
from mixsolve_torch.training.steps import Steps


class Checkpoints:
    """Writes and reads the last checkpoint of a run.

    Parameters
    ----------
    config : TrainConfig
        The settings of the run.
    folder : RunFolder
        Where it is.
    ranks : Ranks
        Those that make the run; the first one writes.
    digests : dict of str to str
        Of the images.
    attack : dict, optional
        The description of the attack that batches are trained on, if one was given.

    Attributes
    ----------
    saved : int or None
        The step of the last checkpoint; None before there is one.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: RunFolder,
        ranks: Ranks,
        digests: dict[str, str],
        attack: dict[str, Any] | None,
    ) -> None:
        self._config, self._folder, self._ranks = config, folder, ranks
        self._digests, self._attack = digests, attack
        self.saved: int | None = None
        self._seconds = 0.0
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """What the run has taken, over all its processes."""
        return self._seconds + time.perf_counter() - self._began

    def write(self, algorithm: Steps, records: list[dict[str, Any]]) -> None:
        """Write the state of a run, aside and renamed.

        Raises
        ------
        MixsolveError
            On all ranks, if networks or losses of one are not finite.
        """
        self.check_finite(algorithm)
        state = algorithm.state()
        own = self._ranks.collect({name: state.pop(name) for name in ("own", "totals", "passes")})
        if self._ranks.first:
            self._folder.write(
                {
                    "config": self._config.to_dict(),
                    "data": self._digests,
                    "attack": self._attack,
                    "algorithm": state,
                    "ranks": own,
                    "records": records,
                    "seconds": self.seconds,
                }
            )
        self.saved = algorithm.t
        self._ranks.wait()

    def restore(self, algorithm: Steps) -> list[dict[str, Any]]:
        """Load the state of a run; return its records.

        Raises
        ------
        MixsolveError
            A checkpoint of another run, or of other networks.
        """
        saved = self._folder.read(self._config, self._digests, self._ranks.size, self._attack)
        own = saved["ranks"][self._ranks.rank]
        try:
            algorithm.load_state(saved["algorithm"] | own)
        except (RuntimeError, KeyError, ValueError) as error:
            why = str(error).strip().partition("\n")[0]
            raise MixsolveError(
                f"the checkpoint {self._folder.last} does not fit the networks of "
                f"model.architecture = {self._config.model.architecture!r}: {why}; restore the "
                "code that it was begun with, or choose another folder"
            ) from error
        self._seconds = saved["seconds"]
        self.saved = algorithm.t
        return saved["records"]

    def check_finite(self, algorithm: Steps) -> None:
        """Refuse, on all ranks, networks or losses that are not finite."""
        broken = torch.tensor(float(not algorithm.finite()), device=self._ranks.device)
        if self._ranks.mean(broken):
            raise self.diverged(
                f"a loss, or parameters of a network, became NaN or infinite by step {algorithm.t}"
            )

    def resumable(self) -> str:
        """Say where the run can be resumed."""
        if self.saved is None:
            return "no checkpoint was written before"
        return f"the checkpoint of step {self.saved}, before that, is in {self._folder.last}"

    def diverged(self, what: str) -> MixsolveError:
        """Return the error of a run whose losses or networks are no longer finite."""
        return MixsolveError(
            f"{what}; lower optimizer.learning_rate, which was "
            f"{self._config.optimizer.learning_rate:g}; {self.resumable()}"
        )
