"""One scene that shows about the mean of what several scenes of the same thing show."""

from collections.abc import Sequence

import torch

from lrm4d.gaussians4d import Gaussians4D
from lrm4d.rasterizer.rendering import MIN_ALPHA


def blend(scenes: Sequence[Gaussians4D], shares: Sequence[float]) -> Gaussians4D:
    """All their Gaussians together, each scene with its share of its optical depth: opacity 1 - (1 - o)^share.

    A scene blended with itself by shares that add up to one is as dense in its Gaussians' middles as before. Where
    scenes were made in ways that err differently, their mean errs less than each. Shares that add up to less than one
    thin out what is in one scene only more than what is in all. Scenes with a share of 0 are left out, and Gaussians
    that have become too faint to be drawn. ValueError as of check_shares, and if the scenes are filtered differently.
    """
    check_shares(shares, len(scenes))
    kept = [(scene, share) for scene, share in zip(scenes, shares, strict=True) if share > 0]
    filters = {(scene.low_pass, scene.compensate) for scene, _ in kept}
    if len(filters) > 1:
        raise ValueError(f"the scenes have different filters (low_pass, compensate): {sorted(filters)}.")
    tensors = [scene.tensors() | {"opacities": _thin(scene.opacities, share)} for scene, share in kept]
    low_pass, compensate = filters.pop()
    joined = {name: torch.cat([one[name] for one in tensors]) for name in tensors[0]}
    drawn = joined["opacities"] >= MIN_ALPHA
    joined = {name: value[drawn] for name, value in joined.items()}
    return Gaussians4D(**joined, low_pass=low_pass, compensate=compensate)


def check_shares(shares: Sequence[float], scenes: int) -> None:
    """ValueError unless there is one share a scene, none negative and not all 0."""
    if len(shares) != scenes or min(shares, default=-1.0) < 0 or max(shares, default=0.0) == 0:
        raise ValueError(f"{scenes} scenes and shares {list(shares)}; expected one share >= 0 a scene, not all 0.")


def _thin(opacities: torch.Tensor, share: float) -> torch.Tensor:
    return opacities if share == 1 else 1 - (1 - opacities).clamp(min=0) ** share
