"""Gaussians at one moment: what every rasterizer takes."""

from dataclasses import dataclass
from itertools import combinations_with_replacement

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.rotations import matrix_to_quaternion, quaternion_to_matrix


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

    def select(self, keep: Tensor) -> "Gaussians3D":
        """The Gaussians of one scene chosen by a mask or by indices."""
        return Gaussians3D(self.means[keep], self.covariances[keep], self.opacities[keep], self.colors[keep])


def pack_symmetric(matrices: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 6"]:
    """(xx, xy, xz, yy, yz, zz) of symmetric 3x3 matrices."""
    rows, columns = torch.triu_indices(3, 3)
    return matrices[..., rows, columns]


def pack_square(factors: Float[Tensor, "*batch 3 k"]) -> Float[Tensor, "*batch 6"]:
    """(xx, xy, xz, yy, yz, zz) of F F^T; without the matrices in between, half the time with the gradient."""
    pairs = combinations_with_replacement(factors.unbind(-2), 2)
    return torch.stack([(a * b).sum(-1) for a, b in pairs], dim=-1)


def unpack_symmetric(packed: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3 3"]:
    """Symmetric 3x3 matrices of (xx, xy, xz, yy, yz, zz)."""
    return packed[..., [0, 1, 2, 1, 3, 4, 2, 4, 5]].unflatten(-1, (3, 3))


def decompose_covariances(
    covariances: Float[Tensor, "*batch 6"],
) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch 4"]]:
    """Scales S (standard deviations, ascending) and unit quaternions (wxyz) of R with R S S^T R^T = covariance.

    Of the many answers, one that is a rotation (never a reflection). Computed in double precision, because the
    smallest scale of a flat Gaussian drowns in the rounding of the largest; a negative variance, which only rounding
    makes, becomes scale 0.
    """
    variances, axes = torch.linalg.eigh(unpack_symmetric(covariances.double()))
    mirrored = torch.linalg.det(axes) < 0
    axes = torch.where(mirrored[..., None, None], -axes, axes)
    scales = variances.clamp(min=0).sqrt()
    return scales.to(covariances), matrix_to_quaternion(axes).to(covariances)


def compose_covariances(
    scales: Float[Tensor, "*batch 3"], quaternions: Float[Tensor, "*batch 4"]
) -> Float[Tensor, "*batch 6"]:
    """R S S^T R^T, packed: the inverse of decompose_covariances. Quaternions of any length but zero."""
    factors = quaternion_to_matrix(quaternions) * scales[..., None, :]
    return pack_square(factors)
