"""What a video is about, cut out of what is around it: by masks, white, or what moves before a camera that rests.

No network. A background that rests is told from what moves before it by time, and the moving thing's parts that rest
for long by their colours and edges: a random walker with priors (Grady, CVPR 2005), with colour models that are
estimated anew between its rounds as GrabCut does (Rother et al., SIGGRAPH 2004).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, avg_pool3d, interpolate, max_pool2d

from lrm4d.generation.geometry import otsu_threshold
from lrm4d.generation.regions import close_gaps, drop_small_parts, fill_small_holes, grow, shrink

WORKING_SIDE = 256
"""Pixels of the longer side at which a moving thing is looked for."""
LEAST_CHANGE = 0.06
"""In a colour channel: what changes less than this is taken for noise."""
BINS = 12
"""Of a colour channel, in colour models."""
ROUNDS, CONTRAST, PRIOR = 4, 10.0, 0.06
"""Of colour models and walks; how fast bonds of pixels fall with the difference of their colours; the weight of colour
models against bonds."""
PLATE_WEIGHT = 4.0
"""Log odds of a pixel that is as the bare background there, or very different."""
PARTS_SIDE = 160
"""Pixels of the longer side, at most, of pictures in which parts are told."""
SMALLEST_PART = 0.02
"""Of the largest part of the thing: smaller ones are noise."""
SMALLEST_HOLE = 0.002
"""Of a picture: smaller ones belong to the thing."""
WHITE_TOLERANCE = 0.08
"""How far from white, in any channel, the background may be: compression and inpainters leave a haze."""
SHARE = (0.01, 0.8)
"""Of the pictures: what is less or more is no object before a background."""


@dataclass(frozen=True)
class Foreground:
    """What a video is about. alphas: [time, 1, height, width] in [0, 1]. how: in words, what told it."""

    alphas: Float[Tensor, "time 1 height width"]
    how: str

    @property
    def share(self) -> float:
        """Of all pixels."""
        return self.alphas.mean().item()

    def on_white(self, frames: Float[Tensor, "time 3 height width"]) -> Float[Tensor, "time 3 height width"]:
        """The frames with white in the place of all else."""
        return frames * self.alphas + 1 - self.alphas


def find_foreground(
    frames: Float[Tensor, "time 3 height width"],
    alphas: Float[Tensor, "time 1 height width"] | None = None,
    masks: Float[Tensor, "time 1 height width"] | None = None,
) -> Foreground:
    """The object of a video: by masks (1 is inside) if given, else by the pictures' own alphas
    if they have any, else by a white background, else by what moves before a camera at rest.

    ValueError where what was found cannot be an object (SHARE), which says what to give.
    """
    if masks is not None:
        found = Foreground(masks, "masks")
    elif alphas is not None and bool((alphas < 1).any()):
        found = Foreground(alphas, "the pictures' own transparency")
    elif is_on_white(frames):
        found = Foreground(cut_out_of_white(frames), "a white background")
    else:
        found = Foreground(cut_out_moving(frames), "what moves before a camera at rest")
    if not SHARE[0] <= found.share <= SHARE[1]:
        raise ValueError(
            f"by {found.how}, the object takes {100 * found.share:.1f} % of the pictures; expected from "
            f"{100 * SHARE[0]:g} to {100 * SHARE[1]:g} %. Give masks of it (--mask: a video, a folder of pictures or "
            "one picture, white inside), or pictures of it on white or with transparency."
        )
    return found


def is_on_white(frames: Float[Tensor, "time 3 height width"]) -> bool:
    """Whether most of the pictures' rims are white."""
    solid = frames.amin(1) < 1 - WHITE_TOLERANCE
    rims = [solid[..., (0, -1), :].flatten(), solid[..., (0, -1)].flatten()]
    return torch.cat(rims).float().mean().item() < 0.5


def cut_out_of_white(frames: Float[Tensor, "time 3 height width"]) -> Float[Tensor, "time 1 height width"]:
    """Alphas, 0 or 1, of frames on white: without specks, and without holes where the object has a white spot."""
    solid = frames.amin(1, keepdim=True) < 1 - WHITE_TOLERANCE
    step = -(-max(frames.shape[-2:]) // PARTS_SIDE)
    # Parts are told on a coarse picture: each step of finding them goes one pixel far.
    coarse = max_pool2d(solid.float(), step, ceil_mode=True) > 0.5
    kept = drop_small_parts(coarse, SMALLEST_PART)
    within = shrink(fill_small_holes(kept, SMALLEST_HOLE), 1) if step > 1 else fill_small_holes(kept, SMALLEST_HOLE)
    kept, within = (
        part.repeat_interleave(step, -2).repeat_interleave(step, -1)[..., : frames.shape[-2], : frames.shape[-1]]
        for part in (kept, within)
    )
    return (solid & kept | within).to(frames.dtype)


def take_from_white(
    frames: Float[Tensor, "time 3 height width"], alphas: Float[Tensor, "time 1 height width"]
) -> tuple[Float[Tensor, "time 3 height width"], Float[Tensor, "time 1 height width"]]:
    """Straight colours and soft alphas of frames on white whose alphas are 0 or 1.

    A pixel of the rim is a mix of white and of what is inside beside it; how much of each is its alpha. Composited on
    white, all but the rim's noise is as before.
    """
    mask = alphas > 0.5
    core = shrink(mask, 1).to(frames)
    weight = avg_pool2d(core, 5, stride=1, padding=2)
    inner = avg_pool2d(frames * core, 5, stride=1, padding=2) / weight.clamp(min=1e-6)
    darkness = (1 - inner).square().sum(1, keepdim=True)
    coverage = ((1 - frames) * (1 - inner)).sum(1, keepdim=True) / darkness.clamp(min=1e-6)
    rim = mask & (core < 0.5) & (weight > 0) & (darkness > 0.05)
    coverage = torch.where(rim, coverage.clamp(0, 1), mask.to(frames))
    return torch.where(rim, inner, frames), coverage


def cut_out_moving(frames: Float[Tensor, "time 3 height width"]) -> Float[Tensor, "time 1 height width"]:
    """Alphas of what moves before a camera at rest, all 0 where nothing does."""
    height, width = frames.shape[-2:]
    factor = min(1.0, WORKING_SIDE / max(height, width))
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    small = interpolate(frames, size, mode="area")
    zone = find_moving_zone(small)
    if not bool(zone.any()):
        return torch.zeros_like(frames[:, :1])
    inside = walk_in_zone(small, zone)
    mask = fill_small_holes(drop_small_parts(inside > 0.5, SMALLEST_PART), SMALLEST_HOLE)
    soft = torch.where(grow(mask, 1), inside, 0.0).where(~mask, inside.clamp(min=0.5))
    fine = interpolate(soft, (height, width), mode="bilinear", align_corners=False)
    return ((fine - 0.5) * 4 + 0.5).clamp(0, 1)


def find_moving_zone(frames: Float[Tensor, "time 3 height width"]) -> Bool[Tensor, "1 1 height width"]:
    """Where something moves at some time, with what it encloses."""
    change = (frames - frames.median(dim=0).values).abs().amax(1, keepdim=True)
    # The third largest of 16: one flash is no motion. A bit blurred: edges of the background tremble.
    often = avg_pool2d(change, 3, stride=1, padding=1).quantile(0.85, dim=0, keepdim=True)
    moving = often > max(LEAST_CHANGE, float(otsu_threshold(often.flatten())) / 2)
    reach = max(1, round(0.03 * max(frames.shape[-2:])))
    zone = drop_small_parts(close_gaps(drop_small_parts(moving, 0.05), reach), 0.2)
    return grow(fill_small_holes(zone, 0.05), reach)


def walk_in_zone(
    frames: Float[Tensor, "time 3 height width"], zone: Bool[Tensor, "1 1 height width"]
) -> Float[Tensor, "time 1 height width"]:
    """How surely each pixel belongs to what moves, 0 outside of the zone."""
    beside = grow(zone, round(0.12 * max(frames.shape[-2:]))) & ~zone
    codes = _color_codes(frames)
    outside = _color_model(codes, beside.expand(len(frames), -1, -1, -1).float())
    change = (frames - frames.median(dim=0).values).abs().amax(1, keepdim=True)
    inside = (zone & (change > 2 * LEAST_CHANGE)).float()
    evidence = torch.zeros_like(inside)
    for _ in range(ROUNDS):
        own = _color_model(codes, inside * zone)
        colors = (own[codes].log() - outside[codes].log())[:, None].clamp(-4, 4)
        inside = solve_walk(frames, torch.sigmoid(colors + evidence), zone)
        evidence = _compare_with_background(frames, inside < 0.5)
    return inside


def _compare_with_background(
    frames: Float[Tensor, "time 3 height width"], bare: Bool[Tensor, "time 1 height width"]
) -> Float[Tensor, "time 1 height width"]:
    """Log odds that a pixel is not the background there, from the median of the frames in which it is bare; 0 where
    that is rare."""
    plate = frames.masked_fill(~bare, torch.nan).nanmedian(dim=0).values
    difference = avg_pool2d((frames - plate).abs().amax(1, keepdim=True).nan_to_num(), 3, stride=1, padding=1)
    odds = PLATE_WEIGHT * (difference / (2 * LEAST_CHANGE) - 1).clamp(-1, 1)
    return odds * (bare.float().mean(0) > 0.15)


def _color_codes(frames: Float[Tensor, "time 3 height width"]) -> Tensor:
    """Each pixel's bin [time, height, width] of colour space."""
    red, green, blue = (frames * (BINS - 1)).round().long().clamp(0, BINS - 1).unbind(1)
    return (red * BINS + green) * BINS + blue


def _color_model(codes: Tensor, weights: Float[Tensor, "time 1 height width"]) -> Float[Tensor, "bin"]:
    """How often each colour is within the weights, a bit blurred and never 0."""
    counts = torch.bincount(codes.flatten(), weights.flatten().double(), minlength=BINS**3).float()
    cube = avg_pool3d(counts.reshape(1, 1, BINS, BINS, BINS), 3, stride=1, padding=1).flatten()
    return cube / cube.sum().clamp(min=1e-6) + 1e-5


def solve_walk(
    frames: Float[Tensor, "time 3 height width"],
    prior: Float[Tensor, "time 1 height width"],
    zone: Bool[Tensor, "1 1 height width"],
    iterations: int = 80,
) -> Float[Tensor, "time 1 height width"]:
    """The probability that a walker who starts at a pixel ends inside: neighbours in space and time of like colours
    agree, each is drawn to its prior, and outside of the zone it is 0. By conjugate gradients."""
    padded = [torch.cat([frames, frames[-1:] + 9.0]), *(_shift_pad(frames, dim) for dim in (2, 3))]
    bonds = []
    for dim, more in zip((0, 2, 3), padded, strict=True):
        gap = (more.narrow(dim, 1, frames.shape[dim]) - frames).abs().mean(1, keepdim=True)
        bonds.append(torch.exp(-CONTRAST * gap) * (gap < 5))
    free = zone.to(frames)

    def spread(values: Tensor) -> Tensor:
        result = PRIOR * values
        for dim, bond in zip((0, 2, 3), bonds, strict=True):
            flow = bond.narrow(dim, 0, bond.shape[dim] - 1) * values.diff(dim=dim)
            result.narrow(dim, 0, flow.shape[dim]).sub_(flow)
            result.narrow(dim, 1, flow.shape[dim]).add_(flow)
        return result * free

    state = prior * free
    rest = PRIOR * prior * free - spread(state)
    step, size = rest.clone(), rest.square().sum()
    for _ in range(iterations):
        moved = spread(step)
        length = size / (step * moved).sum().clamp(min=1e-20)
        state, rest = state + length * step, rest - length * moved
        before, size = size, rest.square().sum()
        step = rest + size / before.clamp(min=1e-20) * step
    return state.clamp(0, 1)


def _shift_pad(frames: Tensor, dim: int) -> Tensor:
    return torch.cat([frames, frames.narrow(dim, frames.shape[dim] - 1, 1) + 9.0], dim)
