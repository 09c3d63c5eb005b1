"""Numbers as colours: a map whose lightness rises evenly, so that equal steps look equal, in print and to everyone."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

DARKEST, LIGHTEST = 0.25, 0.93
"""Lightness in OKLab of 0 and of 1."""
FIRST_HUE, LAST_HUE = 290.0, 460.0
"""Degrees: from violet, through red and orange, to yellow."""
LEAST_CHROMA, MORE_CHROMA = 0.13, 0.05
"""Saturation in OKLab at the ends, where the screen's gamut is narrow, and what the middle has more."""

OKLAB_TO_LMS = (
    (1.0, 0.3963377774, 0.2158037573),
    (1.0, -0.1055613458, -0.0638541728),
    (1.0, -0.0894841775, -1.291485548),
)
LMS_TO_LINEAR = (
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.707614701),
)
"""Bjoern Ottosson, "A perceptual color space for image processing" (2020)."""


def apply_color_map(values: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 3"]:
    """sRGB in [0, 1] of numbers in [0, 1] (clamped): 0 dark violet, 1 light yellow."""
    place = values.clamp(0, 1)
    lightness = DARKEST + (LIGHTEST - DARKEST) * place
    hue = torch.deg2rad(FIRST_HUE + (LAST_HUE - FIRST_HUE) * place)
    chroma = LEAST_CHROMA + MORE_CHROMA * (math.pi * place).sin().square()
    return oklab_to_srgb(torch.stack([lightness, chroma * hue.cos(), chroma * hue.sin()], dim=-1)).clamp(0, 1)


def oklab_to_srgb(colors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """sRGB (outside of [0, 1] where no screen can show it) of OKLab's lightness, a and b."""
    linear = (colors @ colors.new_tensor(OKLAB_TO_LMS).T) ** 3 @ colors.new_tensor(LMS_TO_LINEAR).T
    curved = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, 12.92 * linear, curved)
