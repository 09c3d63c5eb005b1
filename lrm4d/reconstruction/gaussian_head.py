"""From the network's numbers to 4D Gaussians: activations, ranges and starts."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

GAUSSIAN_CHANNELS = 20
"""xyz 3 | t 1 | rgb 3 | scale_xyz 3 | scale_t 1 | left quaternion 4 | right quaternion 4 | opacity 1."""
CHANNEL_SPLIT = (3, 1, 3, 3, 1, 4, 4, 1)
EXIT_CHANNELS = 5
"""Of the Gaussian where the ray leaves: distance 1 | rgb 3 | opacity 1. The rest it shares with the one in front."""
SPHERICAL_HARMONIC_0 = 0.2820948
MAX_SCALE, MAX_TIME_SCALE = 0.3, 1.0
LOG_SCALE_SHIFT, OPACITY_SHIFT = -2.3, -2.0
START_OPACITY_SHIFT, EXIT_OPACITY_SHIFT = 1.0, 0.0
"""Residual starts: the opacities' logits."""


def activate(
    raw: Float[Tensor, "*batch 20"],
) -> dict[str, Tensor]:
    """The paper's activations of all but the position (4D-LRM, arXiv 2506.18890); names as in Gaussians4D."""
    _, time, color, scale, time_scale, left, right, opacity = raw.split(CHANNEL_SPLIT, dim=-1)
    return {
        "time_means": time[..., 0],
        "colors": (SPHERICAL_HARMONIC_0 * color + 0.5).clamp(min=0),
        "scales": torch.exp(scale + LOG_SCALE_SHIFT).clamp(max=MAX_SCALE),
        "time_scales": torch.exp(time_scale[..., 0] + LOG_SCALE_SHIFT).clamp(max=MAX_TIME_SCALE),
        "left_quaternions": left,
        "right_quaternions": right,
        "opacities": torch.sigmoid(opacity[..., 0] + OPACITY_SHIFT),
    }


def activate_from_pixels(
    raw: Float[Tensor, "*batch 20"],
    times: Float[Tensor, "*batch"],
    colors: Float[Tensor, "*batch 3"],
    alphas: Float[Tensor, "*batch"],
    footprints: Float[Tensor, "*batch"],
    start_scale: float,
    start_duration: float,
) -> dict[str, Tensor]:
    """The same with residual starts: what the pixel says, plus what the network adds.

    times: the frame's, model time. colors: straight RGB. alphas: the pixel's, a factor of the opacity.
    footprints: the pixel's width at the Gaussian's distance, the unit of its size, so that it fits any resolution.
    start_scale, start_duration: standard deviations, in footprints and in model time.
    """
    _, time, color, scale, time_scale, left, right, opacity = raw.split(CHANNEL_SPLIT, dim=-1)
    upright = pad(torch.ones_like(left[..., :1]), (0, 3))
    return {
        "time_means": times + time[..., 0],
        "colors": (colors + SPHERICAL_HARMONIC_0 * color).clamp(min=0),
        "scales": (start_scale * footprints[..., None] * torch.exp(scale)).clamp(max=MAX_SCALE),
        "time_scales": (start_duration * torch.exp(time_scale[..., 0])).clamp(max=MAX_TIME_SCALE),
        "left_quaternions": upright + left,
        "right_quaternions": upright + right,
        "opacities": alphas * torch.sigmoid(opacity[..., 0] + START_OPACITY_SHIFT),
    }


def activate_exits(
    raw: Float[Tensor, "*batch 5"],
    front: dict[str, Tensor],
    colors: Float[Tensor, "*batch 3"],
    alphas: Float[Tensor, "*batch"],
) -> dict[str, Tensor]:
    """The Gaussians where the rays leave: like those in front but for colour (starts as the pixel's) and opacity."""
    _, color, opacity = raw.split((1, 3, 1), dim=-1)
    return {
        **front,
        "colors": (colors + SPHERICAL_HARMONIC_0 * color).clamp(min=0),
        "opacities": alphas * torch.sigmoid(opacity[..., 0] + EXIT_OPACITY_SHIFT),
    }


def change_raw(
    raw: Float[Tensor, "*batch channel"], changes: Float[Tensor, "*batch change"]
) -> Float[Tensor, "*batch channel"]:
    """The decoder's numbers with additions to the logit of opacity, the log of all sizes, the log of duration.

    channel: 20 with 3 changes, or 25 with 4: the last is for the logit of the exit's opacity.
    """
    opacity, size, duration, *exit_opacity = changes.split(1, dim=-1)
    zeros = torch.zeros_like(raw[..., :8])
    sizes = size.expand(*size.shape[:-1], 3)
    exits = [part for change in exit_opacity for part in (zeros[..., : EXIT_CHANNELS - 1], change)]
    return raw + torch.cat([zeros[..., :7], sizes, duration, zeros, opacity, *exits], dim=-1)


def place_on_rays(
    logits: Float[Tensor, "*batch"],
    near: float | Float[Tensor, "*#batch"],
    far: float | Float[Tensor, "*#batch"],
    start: Float[Tensor, "*batch"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Distances along unit rays: (1 - w) near + w far, w = sigmoid(logit), added to that of a start w0 in (0, 1)."""
    if start is not None:
        logits = logits + torch.logit(start, eps=1e-4)
    fraction = torch.sigmoid(logits)
    return (1 - fraction) * near + fraction * far
