"""Attacks on mixtures: each looks for images near the originals with a large expected loss."""

from mixsolve_torch.attacks.apgd import APGD
from mixsolve_torch.attacks.arc import ARC
from mixsolve_torch.attacks.base import Attack
from mixsolve_torch.attacks.exhaustive import Exhaustive
from mixsolve_torch.attacks.external import External
from mixsolve_torch.attacks.fab import FAB, Distances
from mixsolve_torch.attacks.given import Given
from mixsolve_torch.attacks.pgd import PGD
from mixsolve_torch.attacks.registry import ATTACKS, resolve_attacks
from mixsolve_torch.attacks.square import Square
from mixsolve_torch.attacks.standard import Standard
from mixsolve_torch.attacks.strongest import WorstOf
from mixsolve_torch.attacks.subset import Subset
from mixsolve_torch.attacks.targeted import TargetedAPGD
from mixsolve_torch.attacks.threat_list import read_threats
from mixsolve_torch.attacks.threats import Finite
from mixsolve_torch.attacks.transfer import TransferPGD
from mixsolve_torch.attacks.uniform import UniformSampling

__all__ = [
    "APGD",
    "ARC",
    "ATTACKS",
    "FAB",
    "PGD",
    "Attack",
    "Distances",
    "Exhaustive",
    "External",
    "Finite",
    "Given",
    "Square",
    "Standard",
    "Subset",
    "TargetedAPGD",
    "TransferPGD",
    "UniformSampling",
    "WorstOf",
    "read_threats",
    "resolve_attacks",
]
