"""Image losses: tensors in, a scalar out. None needs weights."""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
"""Side and standard deviation of SSIM's Gaussian window in pixels (Wang et al., IEEE TIP 2004)."""

PSNR_FLOOR = 1e-4
"""Squared error below which a picture is as good as any other (40 dB): `psnr_loss` has no steep end."""


def color_loss(
    prediction: Float[Tensor, "*batch 3 height width"], target: Float[Tensor, "*batch 3 height width"]
) -> Float[Tensor, ""]:
    """Mean squared error of pictures."""
    return mse_loss(prediction, target)


def psnr_loss(
    prediction: Float[Tensor, "*batch 3 height width"], target: Float[Tensor, "*batch 3 height width"]
) -> Float[Tensor, ""]:
    """The negative PSNR in bels, averaged over the pictures, finite for equal ones: a bad picture of a hard scene
    counts as much as one of an easy scene, where the mean squared error sees only the hard ones."""
    errors = (prediction - target).square().mean(dim=(-3, -2, -1))
    return torch.log10(errors + PSNR_FLOOR).mean()


def silhouette_loss(
    prediction: Float[Tensor, "*batch 1 height width"], target: Float[Tensor, "*batch 1 height width"]
) -> Float[Tensor, ""]:
    """Mean squared error of alphas."""
    return mse_loss(prediction, target)


def gradient_loss(
    prediction: Float[Tensor, "*batch c height width"], target: Float[Tensor, "*batch c height width"]
) -> Float[Tensor, ""]:
    """Mean absolute error of the differences between neighbouring pixels: edges, whatever the brightness."""
    rows = l1_loss(prediction.diff(dim=-2), target.diff(dim=-2))
    return rows + l1_loss(prediction.diff(dim=-1), target.diff(dim=-1))


def ssim_loss(
    prediction: Float[Tensor, "*batch c height width"], target: Float[Tensor, "*batch c height width"]
) -> Float[Tensor, ""]:
    """1 - SSIM averaged over everything: 0 for equal pictures."""
    return 1 - ssim_map(prediction, target).mean()


def ssim_map(
    prediction: Float[Tensor, "*batch c height width"], target: Float[Tensor, "*batch c height width"]
) -> Float[Tensor, "*batch c inner_height inner_width"]:
    """Structural similarity of pictures in [0, 1] at every place where the whole window fits (10 pixels fewer a side).

    Pictures smaller than the window are an error.
    """
    if min(prediction.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(
            f"ssim: the pictures are {prediction.shape[-1]} x {prediction.shape[-2]} pixels; the window needs "
            f"{SSIM_WINDOW} x {SSIM_WINDOW}."
        )
    moments = torch.stack([prediction, target, prediction * prediction, target * target, prediction * target])
    mean_p, mean_t, square_p, square_t, product = _blur(moments)
    c1, c2 = 0.01**2, 0.03**2
    covariance = product - mean_p * mean_t
    variances = square_p - mean_p.square() + square_t - mean_t.square()
    luminance = (2 * mean_p * mean_t + c1) / (mean_p.square() + mean_t.square() + c1)
    return luminance * (2 * covariance + c2) / (variances + c2)


def _blur(images: Float[Tensor, "*batch height width"]) -> Float[Tensor, "*batch inner_height inner_width"]:
    # The window is separable; on the CPU two products with banded matrices are 20 times faster, forward and backward,
    # than one-channel convolutions, and as fast as anything up to 256 pixels.
    height, width = images.shape[-2:]
    rows, columns = (_band_matrix(size).to(images) for size in (height, width))
    return rows @ images @ columns.mT


@lru_cache(maxsize=16)
def _band_matrix(size: int) -> Float[Tensor, "inner size"]:
    """The valid convolution with the Gaussian window along one axis, as a matrix."""
    offsets = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * SSIM_SIGMA**2))
    matrix = torch.zeros(size - SSIM_WINDOW + 1, size, dtype=torch.float64)
    for offset, weight in enumerate(weights / weights.sum()):
        matrix.diagonal(offset).fill_(weight)
    return matrix
