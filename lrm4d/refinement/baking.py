"""The shared motion written into 4D Gaussians: each path becomes pieces that are straight, one Gaussian a piece.

A piece lives around its moment with a deviation of WINDOW times the pieces' spacing, so that the pieces of a Gaussian
fade into each other; its opacity is what makes them, one over the other, as opaque as the Gaussian was. A piece does
not turn. What neither turns nor moves, or moves straight, stays one Gaussian.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.gaussians3d import pack_square
from lrm4d.gaussians4d import MovingGaussians
from lrm4d.refinement.carrying import carry_frames
from lrm4d.refinement.deforming import Deforming
from lrm4d.refinement.motion import to_transforms

WINDOW = 0.55
"""Deviation of a piece's life in spacings. Wider ones lie over each other, which makes opaque ones fatter; narrower
ones let more light through between their moments."""
NEIGHBORS = 4
"""Pieces to each side that still add something (less than 1e-8 beyond)."""


def bake(deforming: Deforming, tolerance: float) -> MovingGaussians:
    """Moving Gaussians that are at each knot where the deforming ones are, to `tolerance` (world units).

    Of the spacings 1, 2, 4, ... knots and the whole clip, each Gaussian takes the widest that keeps the tolerance, in
    its way and in where the ends of its deviations point.
    """
    moving = deforming.moving()
    nodes, skeleton = deforming.poses(), deforming.skeleton
    if skeleton is None or nodes is None:
        return moving
    frames = deforming.frames()
    carried = carry_frames(to_transforms(skeleton, nodes), frames, skeleton.owners, skeleton.weights).transpose(0, 1)
    factors, shifts = carried[..., :3], carried[..., 3] - frames[:, None, :, 3]  # [n, knot, 3, 3], [n, knot, 3]
    knots = shifts.shape[1]
    left = torch.ones(len(deforming), dtype=torch.bool, device=shifts.device)
    parts = []
    for spacing in _spacings(knots):
        straight = _straighten(shifts, spacing)
        farthest = torch.maximum((straight - shifts).norm(dim=-1).amax(dim=1), _turning(factors, spacing))
        fits = farthest <= tolerance
        taken = (left & (fits | (spacing == 1))).nonzero()[:, 0]
        left[taken] = False
        parts.append(_cut(moving.select(taken), straight[taken], factors[taken], spacing))
    return MovingGaussians(**{name: torch.cat([vars(part)[name] for part in parts]) for name in vars(moving)})


def _spacings(knots: int) -> list[int]:
    """Knots between pieces, widest first: the whole clip (twice its last knot: one piece in the middle), ..., 2, 1."""
    doubling = [2**i for i in range((knots - 1).bit_length()) if 2 ** (i + 1) <= knots - 1]
    return [2 * (knots - 1), *reversed(doubling or [1])]


def _straighten(shifts: Float[Tensor, "n knot 3"], spacing: int) -> Float[Tensor, "n knot 3"]:
    """The paths as straight lines between every `spacing`-th knot (the whole clip: one line, by least squares)."""
    knots = shifts.shape[1]
    places = torch.arange(knots, device=shifts.device, dtype=shifts.dtype)
    if spacing >= knots:
        centred = places - places.mean()
        slopes = (shifts * centred[:, None]).sum(1, keepdim=True) / centred.square().sum()
        return shifts.mean(1, keepdim=True) + slopes * centred[:, None]
    anchors = _anchors(knots, spacing)
    after = torch.searchsorted(anchors, torch.arange(knots)).clamp(min=1)
    low, high = anchors[after - 1], anchors[after]
    share = ((torch.arange(knots) - low) / (high - low)).to(shifts)[:, None]
    return shifts[:, low] * (1 - share) + shifts[:, high] * share


def _turning(factors: Float[Tensor, "n knot 3 3"], spacing: int) -> Float[Tensor, "n"]:
    """How far the ends of deviations are from where pieces `spacing` knots apart have them."""
    knots = factors.shape[1]
    if spacing >= knots:
        off = factors - factors.mean(dim=1, keepdim=True)
    else:
        off = factors[:, _anchors(knots, spacing)].diff(dim=1) / 2
    return off.square().sum(dim=(-2, -1)).sqrt().amax(dim=1)


def _anchors(knots: int, spacing: int) -> Tensor:
    """Every `spacing`-th knot, and the last."""
    anchors = torch.arange(0, knots, spacing)
    return anchors if anchors[-1] == knots - 1 else torch.cat([anchors, torch.tensor([knots - 1])])


def _cut(
    moving: MovingGaussians, straight: Float[Tensor, "n knot 3"], factors: Float[Tensor, "n knot 3 3"], spacing: int
) -> MovingGaussians:
    """The pieces of Gaussians whose paths are straight between every `spacing`-th knot."""
    knots = straight.shape[1]
    step = 2 / (knots - 1)  # model time between knots
    if spacing >= knots:
        slopes = (straight[:, -1] - straight[:, 0]) / 2
        middle = straight.mean(1) + slopes * moving.time_means[:, None]
        return MovingGaussians(
            **{
                **vars(moving),
                "means": moving.means + middle,
                "velocities": moving.velocities + slopes,
                "covariances": pack_square(factors.mean(1)),
            }
        )
    places = torch.arange(-spacing, knots - 1 + 2 * spacing, spacing)  # one beyond each end
    inner = places.clamp(0, knots - 1)
    before, after = (places - spacing).clamp(0, knots - 1), (places + spacing).clamp(0, knots - 1)
    run = ((after - before) * step).clamp(min=step).to(straight)
    slopes = (straight[:, after] - straight[:, before]) / run[:, None]
    moments = (-1 + places * step).to(straight)
    shifts = straight[:, inner] + slopes * ((places - inner) * step).to(straight)[:, None]
    covariances = pack_square(factors[:, inner])
    return _window(moving, shifts, slopes, covariances, moments, WINDOW * spacing * step)


def _window(
    moving: MovingGaussians,
    shifts: Float[Tensor, "n piece 3"],
    slopes: Float[Tensor, "n piece 3"],
    covariances: Float[Tensor, "n piece 6"],
    moments: Float[Tensor, "piece"],
    deviation: float,
) -> MovingGaussians:
    """A copy of each Gaussian for each moment, its life times a window around the moment (both Gaussians in time)."""
    own = moving.time_deviations[:, None].square()
    precision = 1 / own + 1 / deviation**2
    centres = (moving.time_means[:, None] / own + moments / deviation**2) / precision
    gap = (moving.time_means[:, None] - moments).square() / (own + deviation**2)
    velocities = moving.velocities[:, None] + slopes
    means = (
        moving.means[:, None]
        + moving.velocities[:, None] * (centres - moving.time_means[:, None])[..., None]
        + shifts
        + slopes * (centres - moments)[..., None]
    )
    opacities = _share_opacity(moving.opacities)[:, None] * torch.exp(-0.5 * gap)
    count = len(moments)
    return MovingGaussians(
        means=means.flatten(0, 1),
        velocities=velocities.flatten(0, 1),
        covariances=covariances.flatten(0, 1),
        time_means=centres.flatten(),
        time_deviations=precision.rsqrt().expand_as(centres).flatten(),
        opacities=opacities.flatten(),
        colors=moving.colors.repeat_interleave(count, dim=0),
    )


def _share_opacity(opacities: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """The opacity of pieces that together let as much light through as one Gaussian: at a piece's own moment.

    Solves (1 - p) (1 - p w_1)^2 (1 - p w_2)^2 ... = 1 - opacity by bisection, w_k the windows of the neighbours.
    """
    offsets = torch.arange(1, NEIGHBORS + 1).to(opacities)
    weights = torch.exp(-0.5 * (offsets / WINDOW).square())
    low, high = torch.zeros_like(opacities), opacities.clone()
    for _ in range(24):
        middle = (low + high) / 2
        through = (1 - middle) * (1 - middle[:, None] * weights).square().prod(dim=1)
        low, high = (
            torch.where(through > 1 - opacities, middle, low),
            torch.where(through > 1 - opacities, high, middle),
        )
    return (low + high) / 2
