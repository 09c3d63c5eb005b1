"""The rasterizer in plain PyTorch: slow, of any float type, differentiable by autograd; the others are tested by it.

Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering" (2023), after Zwicker et al., "EWA
Splatting" (2002).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.gaussians3d import Gaussians3D, unpack_symmetric
from lrm4d.rasterizer.rendering import FAR, MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE, NEAR

TILE = 16
"""Pixels: each square of the picture is blended by itself, with the Gaussians that can reach it."""


@dataclass(frozen=True)
class Splats:
    """Gaussians in one picture. means: pixels; covariances: pixels squared, low-pass included; depths: camera z."""

    means: Float[Tensor, "*batch n 2"]
    covariances: Float[Tensor, "*batch n 2 2"]
    depths: Float[Tensor, "*batch n"]
    compensations: Float[Tensor, "*batch n"]


def project_gaussians(
    means: Float[Tensor, "*batch n 3"],
    covariances: Float[Tensor, "*batch n 6"],
    world_to_camera: Float[Tensor, "*batch 4 4"],
    intrinsics: Float[Tensor, "*batch 3 3"],
    width: int,
    height: int,
    low_pass: float,
) -> Splats:
    """Gaussians as the camera sees them: the perspective made linear at each mean.

    Far outside the picture the linearization means nothing, so its direction is clamped 30 % beyond the field of view.
    """
    rotation = world_to_camera[..., None, :3, :3]
    in_camera = (rotation @ means[..., None])[..., 0] + world_to_camera[..., None, :3, 3]
    depths = in_camera[..., 2]
    slopes = in_camera[..., :2] / depths[..., None]
    focal = intrinsics[..., None, :2, :2]
    centre = intrinsics[..., None, :2, 2]
    pixels = (focal @ slopes[..., None])[..., 0] + centre

    size = intrinsics.new_tensor([width, height])
    scale = torch.stack([intrinsics[..., 0, 0], intrinsics[..., 1, 1]], dim=-1)[..., None, :]
    margin = 0.3 * 0.5 * size / scale
    clamped = torch.minimum(torch.maximum(slopes, -centre / scale - margin), (size - centre) / scale + margin)
    jacobian = torch.cat([focal.expand(*slopes.shape[:-1], 2, 2), -(focal @ clamped[..., None])], dim=-1)
    jacobian = jacobian / depths[..., None, None]

    to_picture = jacobian @ rotation
    sharp = to_picture @ unpack_symmetric(covariances) @ to_picture.mT
    blurred = sharp + low_pass * torch.eye(2, dtype=sharp.dtype, device=sharp.device)
    ratio = (determinant(sharp) / determinant(blurred)).clamp(min=0)
    positive = ratio > 0
    return Splats(pixels, blurred, depths, torch.where(positive, ratio, 1).sqrt() * positive)


def determinant(matrices: Float[Tensor, "*batch 2 2"]) -> Float[Tensor, "*batch"]:
    """Of 2x2 matrices."""
    return matrices[..., 0, 0] * matrices[..., 1, 1] - matrices[..., 0, 1] * matrices[..., 1, 0]


def pixel_alphas(
    means: Float[Tensor, "n 2"],
    covariances: Float[Tensor, "n 2 2"],
    opacities: Float[Tensor, " n"],
    pixels: Float[Tensor, "p 2"],
) -> Float[Tensor, "n p"]:
    """Each splat's alpha at each pixel centre (x, y): 0 where less than MIN_ALPHA, at most MAX_ALPHA."""
    offsets = pixels - means[:, None]
    x, y = offsets.unbind(-1)
    a, b, c = covariances[:, 0, 0, None], covariances[:, 0, 1, None], covariances[:, 1, 1, None]
    distances = (x - b / c * y).square() / (a - b * b / c) + y.square() / c
    alphas = opacities[:, None] * torch.exp(-0.5 * distances)
    return torch.where(alphas >= MIN_ALPHA, alphas.clamp(max=MAX_ALPHA), 0)


def blend(
    alphas: Float[Tensor, "n p"], colors: Float[Tensor, "n 3"], depths: Float[Tensor, " n"]
) -> tuple[Float[Tensor, "p 3"], Float[Tensor, " p"], Float[Tensor, " p"]]:
    """Color, depth times weight (both summed) and transmittance of pixels, the splats being sorted front to back."""
    after = torch.cumprod(1 - alphas, dim=0)
    before = torch.cat([torch.ones_like(after[:1]), after[:-1]])
    alphas = torch.where(before >= MIN_TRANSMITTANCE, alphas, 0)
    weights = alphas * before
    return weights.mT @ colors, weights.mT @ depths, (1 - alphas).prod(dim=0)


def rasterize_view(
    gaussians: Gaussians3D, cameras: Cameras, background: Tensor, low_pass: float, compensate: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Image [3, h, w], alpha [h, w] and depth [h, w] of one scene before one camera (no batch)."""
    width, height = cameras.width, cameras.height
    gaussians = gaussians.select(can_be_drawn(gaussians, cameras))
    splats = project_gaussians(
        gaussians.means, gaussians.covariances, cameras.world_to_camera, cameras.intrinsics, width, height, low_pass
    )
    opacities = gaussians.opacities * splats.compensations if compensate else gaussians.opacities
    with torch.no_grad():
        reach = (2 * (opacities / MIN_ALPHA).clamp(min=1).log()).sqrt() * 1.001
        variances = splats.covariances.diagonal(dim1=-2, dim2=-1)
        reaches = reach[:, None] * variances.sqrt() + 0.01
        sound = (opacities >= MIN_ALPHA) & (determinant(splats.covariances) > 1e-10)
        sound &= (variances > 0).all(-1) & (variances < 1e30).all(-1)
        order = torch.sort(splats.depths, stable=True).indices
        order = order[sound[order]]

    rows = []
    for top in range(0, height, TILE):
        row = []
        for left in range(0, width, TILE):
            corner = torch.tensor([left, top], dtype=reaches.dtype, device=reaches.device)
            size = torch.tensor([min(TILE, width - left), min(TILE, height - top)], device=reaches.device)
            with torch.no_grad():
                near = ((splats.means + reaches > corner) & (splats.means - reaches < corner + size)).all(-1)
                chosen = order[near[order]]
            x, y = (torch.arange(int(n), dtype=reaches.dtype, device=reaches.device) + 0.5 for n in size)
            pixels = corner + torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).flatten(0, 1)
            alphas = pixel_alphas(splats.means[chosen], splats.covariances[chosen], opacities[chosen], pixels)
            color, depth_sum, left_over = blend(alphas, gaussians.colors[chosen], splats.depths[chosen])
            color = color + left_over[:, None] * background
            tile = torch.cat([color, 1 - left_over[:, None], depth_sum[:, None]], dim=-1)
            row.append(tile.mT.unflatten(-1, (len(y), len(x))))
        rows.append(torch.cat(row, dim=-1))
    picture = torch.cat(rows, dim=-2)
    alpha = picture[3]
    return picture[:3], alpha, torch.where(alpha > 0, picture[4] / torch.where(alpha > 0, alpha, 1), 0)


@torch.no_grad()
def can_be_drawn(gaussians: Gaussians3D, camera: Cameras) -> Tensor:
    """Which Gaussians [n] hold only finite numbers, are not transparent, and lie between near and far plane."""
    values = (gaussians.means, gaussians.covariances, gaussians.opacities[:, None], gaussians.colors)
    finite = torch.cat(values, dim=-1).isfinite().all(-1)
    world_to_camera = camera.world_to_camera
    depths = gaussians.means @ world_to_camera[2, :3] + world_to_camera[2, 3]
    return finite & (gaussians.opacities >= MIN_ALPHA) & (depths > NEAR) & (depths < FAR)


def rasterize(
    gaussians: Gaussians3D, cameras: Cameras, background: Tensor, low_pass: float, compensate: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Image [*batch, view, 3, h, w], alpha and depth [*batch, view, 1, h, w]; view by view."""
    views = cameras.shape[-1]
    scenes = gaussians.means.flatten(0, -3).shape[0] if gaussians.shape else 1
    flat = [
        value.reshape(scenes, *value.shape[len(gaussians.shape) :])
        for value in (gaussians.means, gaussians.covariances, gaussians.opacities, gaussians.colors)
    ]
    flat_cameras = cameras.reshape(scenes, views)
    pictures = [
        rasterize_view(
            Gaussians3D(*(value[scene] for value in flat)), flat_cameras[scene, view], background, low_pass, compensate
        )
        for scene in range(scenes)
        for view in range(views)
    ]
    size = (cameras.height, cameras.width)
    if not pictures:
        empty = gaussians.means.new_empty
        return empty(*cameras.shape, 3, *size), empty(*cameras.shape, 1, *size), empty(*cameras.shape, 1, *size)
    image, alpha, depth = (torch.stack(planes) for planes in zip(*pictures, strict=True))
    shape = (*cameras.shape, -1, *size)
    return image.reshape(shape), alpha.reshape(shape), depth.reshape(shape)
