"""What a rasterizer gives back, and the numbers that every backend agrees on."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

NEAR = 0.01
"""Gaussians whose mean is nearer (camera z) are not drawn."""
FAR = 1e10
"""Gaussians whose mean is farther (camera z) are not drawn."""
MIN_ALPHA = 1 / 255
"""A Gaussian does nothing to a pixel where its alpha is less: 8 bits would not show it."""
MAX_ALPHA = 0.99
"""Alpha is clamped to this (gsplat's CUDA kernels: 0.999)."""
MIN_TRANSMITTANCE = 1e-4
"""A pixel is finished once less light than this passes; the Gaussian that does it is still drawn (gsplat omits it)."""


@dataclass(frozen=True)
class Rendering:
    """Pictures of Gaussians.

    image: [*batch, 3, height, width] RGB over the background. alpha: [*batch, 1, height, width] in [0, 1].
    depth: [*batch, 1, height, width], the mean camera z weighted by what each Gaussian adds; 0 where nothing is.
    """

    image: Float[Tensor, "*batch 3 height width"]
    alpha: Float[Tensor, "*batch 1 height width"]
    depth: Float[Tensor, "*batch 1 height width"]
