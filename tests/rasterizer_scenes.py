"""Scenes for the rasterizer's tests, and the pixels at which float32 may rightly decide otherwise than float64."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lrm4d.cameras import Cameras, intrinsics_from_fov, look_at
from lrm4d.gaussians3d import Gaussians3D, pack_symmetric
from lrm4d.rasterizer import Rendering, rasterize, reference
from lrm4d.rasterizer.rendering import MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE


def random_scene(seed: int, n: int, batch=(), views=1, width=24, height=18, scale=0.1, opaque=False):
    """Gaussians around the origin, of about `scale` in size, before cameras three units away; float32."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*batch, *shape, generator=generator)

    factors = normal(n, 3, 3) * scale * torch.exp(0.7 * normal(n, 1, 3))
    opacities = torch.sigmoid(2 * normal(n) + (3 if opaque else 0))
    gaussians = Gaussians3D(
        0.4 * normal(n, 3), pack_symmetric(factors @ factors.mT), opacities, normal(n, 3).sigmoid()
    )
    origins = 3 * normalize(normal(views, 3), dim=-1)
    intrinsics = intrinsics_from_fov(0.8, width, height).expand(*batch, views, 3, 3).clone()
    intrinsics[..., :2, :] *= 1 + 0.1 * normal(views, 2, 1)  # not square, not centred
    return gaussians, Cameras(look_at(origins, 0.1 * normal(views, 3)), intrinsics, width, height)


def tensors(gaussians: Gaussians3D) -> list[Tensor]:
    return [gaussians.means, gaussians.covariances, gaussians.opacities, gaussians.colors]


def to_double(gaussians: Gaussians3D) -> Gaussians3D:
    return Gaussians3D(*(x.double() for x in tensors(gaussians)))


def render_with_gradients(
    gaussians: Gaussians3D, cameras: Cameras, background: Tensor, weights: list[Tensor], **options
) -> tuple[Rendering, tuple[Tensor, ...]]:
    """The rendering, and sum(planes * weights)' gradients by means, covariances, opacities, colors, background."""
    leaves = [x.detach().clone().requires_grad_() for x in (*tensors(gaussians), background)]
    rendering = rasterize(Gaussians3D(*leaves[:4]), cameras, leaves[4], **options)
    planes = (rendering.image, rendering.alpha, rendering.depth)
    loss = sum((plane * weight.to(plane)).sum() for plane, weight in zip(planes, weights, strict=True))
    return rendering, torch.autograd.grad(loss, leaves)


def random_weights(cameras: Cameras, seed: int = 0) -> list[Tensor]:
    """A weight for every number of a rendering of these cameras."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*cameras.shape, c, cameras.height, cameras.width, generator=generator) for c in (3, 1, 1)]


@torch.no_grad()
def undecided_pixels(gaussians: Gaussians3D, cameras: Cameras, low_pass: float, compensate: bool) -> Tensor:
    """Pixels [view, 1, h, w] where rounding may decide: alpha at 1/255 or .99, transmittance at 1e-4, equal depths.

    For one scene without batch. The rest of the picture must agree to the last digits.
    """
    gaussians, cameras = to_double(gaussians), cameras.to(torch.float64)
    grid = torch.meshgrid(torch.arange(cameras.height) + 0.5, torch.arange(cameras.width) + 0.5, indexing="ij")
    pixels = torch.stack(grid[::-1], dim=-1).flatten(0, 1).double()
    found = []
    for view in range(len(cameras)):
        shown = gaussians.select(reference.can_be_drawn(gaussians, cameras[view]))
        splats = reference.project_gaussians(
            shown.means,
            shown.covariances,
            cameras[view].world_to_camera,
            cameras[view].intrinsics,
            cameras.width,
            cameras.height,
            low_pass,
        )
        opacities = shown.opacities * (splats.compensations if compensate else 1)
        order = splats.depths.argsort()
        means, covariances, depths = splats.means[order], splats.covariances[order], splats.depths[order]
        # A hair more and a hair less opaque.
        more, less = (
            reference.pixel_alphas(means, covariances, opacities[order] * factor, pixels)
            for factor in (1.00001, 0.99999)
        )
        doubtful = ((more >= MIN_ALPHA) != (less >= MIN_ALPHA)).any(0)
        doubtful |= ((more >= MAX_ALPHA) != (less >= MAX_ALPHA)).any(0)
        left = torch.cumprod(1 - less, dim=0)
        doubtful |= ((left / MIN_TRANSMITTANCE).log().abs() < 1e-4).any(0)
        close = depths.diff() < 3e-7 * depths[1:]
        lit = left[1:] > MIN_TRANSMITTANCE / 1000
        doubtful |= (close[:, None] & lit & (less[1:] > 0) & (less[:-1] > 0)).any(0)
        found.append(doubtful.reshape(1, cameras.height, cameras.width))
    return torch.stack(found)
