"""Scores of pictures: one number a picture, never averaged here. Pictures in [0, 1].

The conventions of every table of this project: a score of many pictures is the mean of the pictures' scores; a score
of many scenes is the mean of the scenes' scores. "Object" is the score inside object_mask of the true alpha.
"""

from importlib.util import find_spec

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lrm4d.losses import ssim_map

HIGHEST_PSNR = 100.0
"""Decibels given to equal pictures, whose PSNR has no bound."""
MASK_GROWTH = 4


def psnr(
    prediction: Float[Tensor, "*batch 3 height width"], target: Float[Tensor, "*batch 3 height width"]
) -> Float[Tensor, "*batch"]:
    """Peak signal-to-noise ratio of each picture in dB, at most HIGHEST_PSNR."""
    return _decibels((prediction - target).square().mean(dim=(-3, -2, -1)))


def masked_psnr(
    prediction: Float[Tensor, "*batch 3 height width"],
    target: Float[Tensor, "*batch 3 height width"],
    mask: Bool[Tensor, "*batch 1 height width"],
) -> Float[Tensor, "*batch"]:
    """PSNR over the mask's pixels alone, in dB; NaN where a picture's mask is empty (leave it out: nanmean)."""
    squares = (prediction - target).square() * mask
    return _decibels(squares.sum(dim=(-3, -2, -1)) / (3 * mask.sum(dim=(-3, -2, -1))))


def object_mask(alphas: Float[Tensor, "*batch 1 height width"]) -> Bool[Tensor, "*batch 1 height width"]:
    """Where the object is: alpha above 0.5, grown by 4 pixels (steps up, down, left and right)."""
    mask = alphas > 0.5
    for _ in range(MASK_GROWTH):
        grown = mask.clone()
        grown[..., 1:, :] |= mask[..., :-1, :]
        grown[..., :-1, :] |= mask[..., 1:, :]
        grown[..., 1:] |= mask[..., :-1]
        grown[..., :-1] |= mask[..., 1:]
        mask = grown
    return mask


def ssim(
    prediction: Float[Tensor, "*batch 3 height width"], target: Float[Tensor, "*batch 3 height width"]
) -> Float[Tensor, "*batch"]:
    """Structural similarity of each picture (Wang et al. 2004: Gaussian window of 11, sigma 1.5, where it fits)."""
    return ssim_map(prediction, target).mean(dim=(-3, -2, -1))


def why_no_lpips() -> str | None:
    """None if LPIPS can be computed; otherwise the reason and the remedy, in one sentence."""
    if find_spec("lpips") is None:
        return "the package lpips is not installed (pip install lpips; it downloads AlexNet's weights when first used)"
    return None


def lpips(
    prediction: Float[Tensor, "*batch 3 height width"], target: Float[Tensor, "*batch 3 height width"]
) -> Float[Tensor, "*batch"]:
    """Learned perceptual distance of each picture (Zhang et al. 2018, AlexNet), by the optional package lpips."""
    reason = why_no_lpips()
    if reason:
        raise ValueError(f"LPIPS is not available: {reason}.")
    from lpips import LPIPS  # an optional package, and slow to import

    network = LPIPS(net="alex", verbose=False).to(prediction.device).eval()
    with torch.no_grad():
        distances = network(prediction.flatten(0, -4), target.flatten(0, -4), normalize=True)
    return distances.reshape(prediction.shape[:-3])


def _decibels(errors: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    return -10 * torch.log10(errors.clamp(min=10 ** (-HIGHEST_PSNR / 10)))
