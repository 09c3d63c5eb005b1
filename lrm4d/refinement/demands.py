"""What pictures ask of the Gaussians that they show: the gradients of their errors, picture by picture."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrm4d.gaussians3d import Gaussians3D
from lrm4d.gaussians4d import to_model_time
from lrm4d.refinement.deforming import Deforming
from lrm4d.refinement.fit import draw_slices
from lrm4d.views import Views

COARSER = (4,)
"""The pictures are asked also at their size divided by these."""
DEMANDS = 8 * (1 + len(COARSER))
"""Of a picture on a Gaussian, at each size: place 3, size 1, opacity 1, colour 3."""
MOMENTS = 5 * (1 + len(COARSER))
"""What the same demands come to on a Gaussian's course in time: velocity 3, time 1, duration 1."""
FOOTPRINT = 0.04
"""A pixel's width that demands are scaled to, world units: finer pictures of an object have more pixels and more
Gaussians, so that each Gaussian is asked for as much; but they move it by more pixels."""
FAINTEST = 0.02
"""Opacity at a picture's time below which a Gaussian is not asked."""
CHUNK_BYTES, SLICED_BYTES = 2**29, 4 * 13 * 4
"""Memory that asking takes, about: of a Gaussian in a picture 13 numbers, sliced, their copies and gradients."""


class Demands(NamedTuple):
    """What pictures ask of the Gaussians that they show, pair by pair.

    gaussians: whose. gradients: of the squared errors' sum. gaps: from the Gaussian's time to the picture's in its
    durations.
    """

    gaussians: Int[Tensor, "pair"]
    gradients: Float[Tensor, "pair demand"]
    gaps: Float[Tensor, "pair"]


def ask_pictures(scene: Deforming, views: Views, low_pass: float, compensate: bool) -> Demands:
    """The gradients, picture by picture, of the squared errors of colours (on white) and alphas.

    Of the pictures as they are and of each of COARSER: there a Gaussian feels what is missing some pixels away. In
    units that change with the Gaussian: of its place in its own size, of size and opacity in their logarithms.
    """
    run = max(1, CHUNK_BYTES // (SLICED_BYTES * max(1, len(scene))))
    runs = [views[start : start + run] for start in range(0, len(views), run)]
    parts = [_ask_run(scene, pictures, low_pass, compensate) for pictures in runs]
    return Demands(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _ask_run(scene: Deforming, views: Views, low_pass: float, compensate: bool) -> Demands:
    moments = to_model_time(views.times)
    with torch.no_grad():
        sliced = scene.slice_at(moments)
    leaves = Gaussians3D(*(value.detach().clone().requires_grad_() for value in vars(sliced).values()))
    pairs = (leaves.opacities.flatten() > FAINTEST).nonzero()[:, 0]
    owners = pairs % len(scene)
    sizes = scene.gaussians["log_scales"].detach().mean(-1).exp()[owners, None]
    asked = []
    for factor in (1, *COARSER):
        width, height = (max(1, round(side / factor)) for side in (views.cameras.width, views.cameras.height))
        level = views if factor == 1 else views.resize(width, height)
        gradients = _error_gradients(leaves, level, low_pass, compensate)
        means, covariances, opacities, colors = (value.flatten(0, 1)[pairs] for value in vars(gradients).values())
        shape, alpha = leaves.covariances.detach().flatten(0, 1)[pairs], leaves.opacities.detach().flatten()[pairs]
        of_sizes = 2 * (covariances * shape).sum(-1, keepdim=True)
        scale = level.footprint() ** 2 / (views.footprint() * FOOTPRINT)
        asked += [scale * part for part in (means * sizes, of_sizes, (opacities * alpha)[:, None], colors)]
    times, durations = scene.gaussians["time_means"].detach(), scene.gaussians["log_time_deviations"].detach().exp()
    gaps = (moments[pairs // len(scene)] - times[owners]) / durations[owners]
    return Demands(owners, torch.cat(asked, dim=-1), gaps)


def _error_gradients(leaves: Gaussians3D, views: Views, low_pass: float, compensate: bool) -> Gaussians3D:
    with torch.enable_grad():
        drawn = draw_slices(leaves, views.cameras.reshape(-1, 1), low_pass, compensate)[:, 0]
        white = drawn.colors.new_ones(len(views), 3)
        error = (drawn.on(white) - views.composite(white[0])).square().sum()
        error = error + (drawn.alphas - views.alphas).square().sum()
        return Gaussians3D(*torch.autograd.grad(error, list(vars(leaves).values())))


def moments_of(gradients: Float[Tensor, "pair demand"], gaps: Float[Tensor, "pair"]) -> Float[Tensor, "pair moment"]:
    """The part of each demand in the gradients of a Gaussian's velocity, time and log duration, in its own units.

    Its place at a picture's time goes with velocity times gap, the logarithm of its opacity then with -gap^2 / 2.
    """
    levels = gradients.unflatten(-1, (-1, 8))
    place, opacity, gap = levels[..., :3], levels[..., 4:5], gaps[:, None, None]
    return torch.cat([place * gap, opacity * gap, opacity * gap.square()], dim=-1).flatten(1)
