"""gsplat's CUDA kernels behind our interface: the only import of gsplat.

gsplat clamps alpha at 0.999 where we clamp at 0.99, leaves out the Gaussian that brings a pixel's transmittance below
1e-4, and knows no skew: pictures differ by 0.01 at most where opaque Gaussians overlap, by rounding elsewhere.
"""

import functools
import math

import torch
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.gaussians3d import Gaussians3D
from lrm4d.rasterizer import reference
from lrm4d.rasterizer.rendering import FAR, NEAR

TILE = 16
"""Pixels a side of the squares that gsplat draws."""


@functools.cache
def is_available() -> bool:
    """Whether gsplat can be imported."""
    try:
        import gsplat  # noqa: F401
    except ImportError:
        return False
    return True


def rasterize(
    gaussians: Gaussians3D, cameras: Cameras, background: Tensor, low_pass: float, compensate: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Image [*batch, view, 3, h, w], alpha and depth [*batch, view, 1, h, w], in one launch."""
    if 0 in cameras.shape or gaussians.means.shape[-2] == 0:
        return reference.rasterize(gaussians, cameras, background, low_pass, compensate)
    views = cameras.shape[-1]
    flat = cameras.reshape(cameras.shape[:-1].numel(), views)
    picture, alpha = _draw(*finite_or_nothing(gaussians, len(flat)), flat, background, low_pass, compensate)
    image, depths = picture.split([3, 1], dim=-1)
    depth = depths / alpha.clamp(min=1e-10)
    shape = (*cameras.shape, -1, cameras.height, cameras.width)
    return tuple(planes.movedim(-1, -3).reshape(shape) for planes in (image, alpha, depth))


def _draw(
    means: Tensor,
    covariances: Tensor,
    opacities: Tensor,
    colors: Tensor,
    cameras: Cameras,
    background: Tensor,
    low_pass: float,
    compensate: bool,
) -> tuple[Tensor, Tensor]:
    """Color and depth times weight [scene, view, h, w, 4], alpha [scene, view, h, w, 1].

    By the parts of gsplat.rasterization, which takes whole matrices as covariances and picks the six numbers out of
    them by an index: the parts take the six.
    """
    import gsplat

    width, height = cameras.width, cameras.height
    radii, centres, depths, conics, compensations = gsplat.fully_fused_projection(
        means,
        covariances,
        None,
        None,
        cameras.world_to_camera,
        cameras.intrinsics,
        width,
        height,
        eps2d=low_pass,
        near_plane=NEAR,
        far_plane=FAR,
        calc_compensations=compensate,
        opacities=opacities,
    )
    opacities = opacities[:, None].expand(depths.shape)
    opacities = opacities * compensations if compensate else opacities
    features = torch.cat([colors[:, None].expand(*depths.shape, 3), depths[..., None]], dim=-1)
    tiles = math.ceil(width / TILE), math.ceil(height / TILE)
    _, crossings, order = gsplat.isect_tiles(centres, radii, depths, TILE, *tiles)
    starts = gsplat.isect_offset_encode(crossings, cameras.shape.numel(), *tiles).reshape(*cameras.shape, *tiles[::-1])
    backgrounds = torch.cat([background, background.new_zeros(1)]).expand(*cameras.shape, 4)
    return gsplat.rasterize_to_pixels(
        centres, conics, features, opacities, width, height, TILE, starts, order, backgrounds
    )


def finite_or_nothing(gaussians: Gaussians3D, scenes: int) -> list[Tensor]:
    """Means, covariances, opacities and colors [scenes, n, ...]; all zero for a Gaussian with a number not finite."""
    values = (gaussians.means, gaussians.covariances, gaussians.opacities[..., None], gaussians.colors)
    flat = [value.reshape(scenes, *value.shape[-2:]) for value in values]
    finite = torch.cat(flat, dim=-1).isfinite().all(-1, keepdim=True)
    means, covariances, opacities, colors = (torch.where(finite, value, 0) for value in flat)
    return [means, covariances, opacities[..., 0], colors]
