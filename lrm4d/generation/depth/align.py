"""Depth models tell inverse depth up to a scale and a shift, other ones for each frame: here they are made to agree.

All values are inverse depths (1 / z), in which the ambiguity is affine (MiDaS, arXiv 1907.01341). Fits trim the
residuals outside of their 10 to 90 % (as SEE4D, arXiv 2510.26796), so that what moves does not count.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

TRIM = (0.1, 0.9)
"""Quantiles of the residuals that a fit keeps."""
OUTLYING = 3.0
"""Robust standard deviations (from the median absolute one) beyond which a residual is an outlier."""
PAIRS = 20000
"""Random pairs whose slopes a fit starts from."""
ROUNDS = 10
"""Times that a fit is repeated on what it kept."""
MOST_SAMPLES = 1 << 15
"""Pixels that a fit looks at, evenly spaced: more change nothing but the time."""


def fit_scale_shift(
    values: Float[Tensor, "n"], references: Float[Tensor, "n"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Scale and shift with scale * values + shift = references, robustly; up to a quarter may be outliers.

    Starts with the median slope of random pairs (Theil, 1950; Sen, 1968), then repeats least squares on the residuals
    that lie within TRIM and within OUTLYING deviations. The scale is the geometric mean of the fits both ways: one way
    alone shrinks with noise, and a chain of frames would fade. Where either is constant, the scale is 1.
    Raises ValueError for fewer than 3 values.
    """
    if len(values) < 3:
        raise ValueError(f"alignment: {len(values)} pixels are known in both; expected at least 3.")
    step = -(-len(values) // MOST_SAMPLES)
    values, references = values[::step].double(), references[::step].double()
    scale = _median_slope(values, references)
    quantiles, tiny = references.new_tensor(TRIM), 1e-9 * references.std()
    for _ in range(ROUNDS):
        residuals = references - scale * values
        low, high = torch.quantile(residuals, quantiles)
        gaps = (residuals - residuals.median()).abs()
        kept = (residuals >= low) & (residuals <= high) & (gaps <= OUTLYING * 1.4826 * gaps.median() + tiny)
        x, y = values[kept], references[kept]
        ratio = y.std() / x.std()
        scale = torch.where(ratio.isfinite() & (ratio > 0), ratio, 1.0)
    return scale, y.mean() - scale * x.mean()


def align_to_reference(
    inverse: Float[Tensor, "time 1 height width"],
    references: Float[Tensor, "#time 1 height width"],
    known: Bool[Tensor, "#time 1 height width"],
) -> Float[Tensor, "time 1 height width"]:
    """Every frame's inverse depths scaled and shifted to fit a reference's, over the pixels where it is known.

    references, known: of each frame, or one for all.
    """
    references, known = references.expand_as(inverse), known.expand_as(inverse)
    aligned = []
    for frame, reference, mask in zip(inverse, references, known, strict=True):
        scale, shift = fit_scale_shift(frame[mask], reference[mask])
        aligned.append((frame * scale + shift).to(inverse))
    return torch.stack(aligned)


def align_over_time(
    inverse: Float[Tensor, "time 1 height width"], known: Bool[Tensor, "time 1 height width"]
) -> Float[Tensor, "time 1 height width"]:
    """Inverse depths scaled and shifted so that each frame fits the one before it; the first stays.

    For a camera at rest or in slow motion: most pixels must show about the depth that they showed before.
    """
    aligned = [inverse[0]]
    for index in range(1, len(inverse)):
        both = (known[index] & known[index - 1])[None]
        aligned.append(align_to_reference(inverse[index, None], aligned[-1][None], both)[0])
    return torch.stack(aligned)


def spread_inverse(
    inverse: Float[Tensor, "time 1 height width"], near: float, far: float
) -> Float[Tensor, "time 1 height width"]:
    """Depths of affine-invariant inverse depths, for want of a reference: the clip's span becomes near to far.

    The middle 98 % are spread from 1 / far to 1 / near, the rest clamped.
    """
    step = -(-inverse.numel() // MOST_SAMPLES)
    low, high = torch.quantile(inverse.flatten()[::step], inverse.new_tensor([0.01, 0.99]))
    share = ((inverse - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    return 1 / torch.lerp(torch.full_like(share, 1 / far), torch.full_like(share, 1 / near), share)


def _median_slope(values: Float[Tensor, "n"], references: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """Of pairs drawn alike every time; 1 where no two values differ."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randint(len(values), (2, PAIRS), generator=generator).to(values.device)
    run = values[second] - values[first]
    slopes = ((references[second] - references[first]) / run)[run != 0]
    return slopes.median() if len(slopes) else values.new_ones(())
