"""Gaussians at one moment: what every rasterizer takes."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Gaussians3D:
    """Coloured 3D Gaussians. Covariances are the six numbers (xx, xy, xz, yy, yz, zz) of the symmetric matrix.

    means: [*batch, n, 3], world units. covariances: [*batch, n, 6], world units squared, positive semi-definite.
    opacities: [*batch, n] in [0, 1]. colors: [*batch, n, 3] RGB, from 0.
    """

    means: Float[Tensor, "*batch n 3"]
    covariances: Float[Tensor, "*batch n 6"]
    opacities: Float[Tensor, "*batch n"]
    colors: Float[Tensor, "*batch n 3"]

    @property
    def shape(self) -> torch.Size:
        """The batch shape (without n)."""
        return self.means.shape[:-2]


def pack_symmetric(matrices: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 6"]:
    """(xx, xy, xz, yy, yz, zz) of symmetric 3x3 matrices."""
    rows, columns = torch.triu_indices(3, 3)
    return matrices[..., rows, columns]


def unpack_symmetric(packed: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3 3"]:
    """Symmetric 3x3 matrices of (xx, xy, xz, yy, yz, zz)."""
    return packed[..., [0, 1, 2, 1, 3, 4, 2, 4, 5]].unflatten(-1, (3, 3))
