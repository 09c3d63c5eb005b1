"""Scores of one prediction against the true views, and means of scores.

psnr: full image on white. psnr_object: inside the true alpha's mask grown by 4 pixels. ssim: full image on white.
A score is the mean over the target pictures; targets in which the object is not seen are left out of psnr_object.
"""

import math
from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor

from lrm4d.metrics import lpips, masked_psnr, object_mask, psnr, ssim
from lrm4d.views import Views

METRICS = ("psnr", "psnr_object", "ssim", "lpips")
Scores = dict[str, float | None]


def score_pictures(
    prediction: Float[Tensor, "target 3 height width"], truth: Views, with_lpips: bool = False
) -> Scores:
    """Scores of predicted pictures on white against the truth on white; None where a score cannot be had."""
    target = truth.composite(truth.images.new_ones(3))
    pictures = {
        "psnr": psnr(prediction, target),
        "psnr_object": masked_psnr(prediction, target, object_mask(truth.alphas)),
        "ssim": ssim(prediction, target),
    }
    if with_lpips:
        pictures["lpips"] = lpips(prediction, target)
    return {name: _number(values.nanmean().item()) for name, values in pictures.items()}


def mean_scores(scores: Iterable[Scores]) -> Scores:
    """The mean of each score over those that have it."""
    scores = list(scores)
    names = dict.fromkeys(name for one in scores for name in one)
    columns = {name: [one[name] for one in scores if one.get(name) is not None] for name in names}
    return {name: sum(values) / len(values) if values else None for name, values in columns.items()}


def _number(value: float) -> float | None:
    # JSON has no NaN: a score of no pictures is null.
    return round(value, 5) if math.isfinite(value) else None
