"""Pictures and geometry of a shard at the size that a training stage wants."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from lrm4d.views import Views

SAME_SURFACE = 1.5
"""Standard deviation of four neighbours' depths, in widths of a pixel at that depth, up to which they are taken for
one surface: a plane tilted by 70 degrees stays below it."""


def fit_square(views: Views, geometry: Mapping[str, Tensor], size: int) -> tuple[Views, dict[str, Tensor]]:
    """Views [view] and their geometry with pictures of size x size: the middle square, resized."""
    width, height = views.cameras.width, views.cameras.height
    if width == height == size:
        return views, dict(geometry)
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    crop = (..., slice(top, top + side), slice(left, left + side))
    shift = views.cameras.intrinsics.new_tensor([[0, 0, left], [0, 0, top], [0, 0, 0]])
    cameras = replace(views.cameras, intrinsics=views.cameras.intrinsics - shift, width=side, height=side)
    views = Views(views.images[crop], views.alphas[crop], cameras, views.times)
    cut = {name: values[crop] for name, values in geometry.items()}
    return views.resize(size, size), resize_geometry(cut, cameras.intrinsics[:, 0, 0], size)


def resize_geometry(geometry: Mapping[str, Tensor], focal: Float[Tensor, "view"], size: int) -> dict[str, Tensor]:
    """Layers [view, channel, side, side] at the centres of size x size pixels; focal: pixels, as the layers are.

    Values are interpolated between the four pixels around a centre where those are on one surface; elsewhere, along
    edges, they are the nearest pixel's, since no surface is at a mean. Layers of one channel are depths, 0 for none.
    """

    def interpolated(values: Tensor) -> Tensor:
        return interpolate(values.double(), (size, size), mode="bilinear", align_corners=False)

    def everywhere(mask: Tensor) -> Tensor:
        return interpolated(mask) > 0.999

    def resize(values: Tensor) -> Tensor:
        nearest = interpolate(values.double(), (size, size), mode="nearest-exact")
        if values.dtype == torch.bool:
            return nearest > 0
        smooth = one_surface & everywhere(values != 0) if values.shape[1] == 1 else one_surface
        return torch.where(smooth, interpolated(values), nearest).to(values.dtype)

    if not geometry:
        return {}
    depths = interpolated(geometry["depths"])
    variance = interpolated(geometry["depths"].double().square()) - depths.square()
    limit = SAME_SURFACE * depths / focal[:, None, None, None]
    one_surface = everywhere(geometry["hits"]) & (variance < limit.square())
    return {name: resize(values) for name, values in geometry.items()}
