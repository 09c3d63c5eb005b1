"""gsplat's CUDA kernels behind our interface: the only import of gsplat.

gsplat clamps alpha at 0.999 where we clamp at 0.99, leaves out the Gaussian that brings a pixel's transmittance below
1e-4, and knows no skew: pictures differ by 0.01 at most where opaque Gaussians overlap, by rounding elsewhere.
"""

import functools

import torch
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.gaussians3d import Gaussians3D, unpack_symmetric
from lrm4d.rasterizer import reference
from lrm4d.rasterizer.rendering import FAR, NEAR


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
    import gsplat

    if 0 in cameras.shape or gaussians.means.shape[-2] == 0:
        return reference.rasterize(gaussians, cameras, background, low_pass, compensate)
    views = cameras.shape[-1]
    scenes = cameras.shape[:-1].numel()
    means, covariances, opacities, colors = finite_or_nothing(gaussians, scenes)
    world_to_camera = cameras.world_to_camera.reshape(scenes, views, 4, 4)
    picture, alpha, _ = gsplat.rasterization(
        means=means,
        quats=None,
        scales=None,
        covars=unpack_symmetric(covariances),
        opacities=opacities,
        colors=colors,
        viewmats=world_to_camera,
        Ks=cameras.intrinsics.reshape(scenes, views, 3, 3),
        width=cameras.width,
        height=cameras.height,
        near_plane=NEAR,
        far_plane=FAR,
        eps2d=low_pass,
        packed=False,
        backgrounds=background.expand(scenes, views, 3),
        render_mode="RGB+ED",
        rasterize_mode="antialiased" if compensate else "classic",
    )
    image, depth = picture.split([3, 1], dim=-1)
    shape = (*cameras.shape, -1, cameras.height, cameras.width)
    return tuple(planes.movedim(-1, -3).reshape(shape) for planes in (image, alpha, depth))


def finite_or_nothing(gaussians: Gaussians3D, scenes: int) -> list[Tensor]:
    """Means, covariances, opacities and colors [scenes, n, ...]; all zero for a Gaussian with a number not finite."""
    values = (gaussians.means, gaussians.covariances, gaussians.opacities[..., None], gaussians.colors)
    flat = [value.reshape(scenes, *value.shape[-2:]) for value in values]
    finite = torch.cat(flat, dim=-1).isfinite().all(-1, keepdim=True)
    means, covariances, opacities, colors = (torch.where(finite, value, 0) for value in flat)
    return [means, covariances, opacities[..., 0], colors]
