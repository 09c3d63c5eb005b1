"""Regions of pictures: parts that hang together, grown and shrunk. Masks are [*batch, 1, height, width], bool."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.functional import max_pool2d


def grow(mask: Bool[Tensor, "*batch 1 height width"], pixels: int) -> Bool[Tensor, "*batch 1 height width"]:
    """The mask and all that is within so many pixels of it, diagonally too."""
    flat = mask.reshape(-1, 1, *mask.shape[-2:]).float()
    return max_pool2d(flat, 2 * pixels + 1, stride=1, padding=pixels).reshape(mask.shape) > 0.5


def shrink(mask: Bool[Tensor, "*batch 1 height width"], pixels: int) -> Bool[Tensor, "*batch 1 height width"]:
    """What is farther than so many pixels from all that is outside; the picture's rim is no outside."""
    return ~grow(~mask, pixels)


def close_gaps(mask: Bool[Tensor, "*batch 1 height width"], pixels: int) -> Bool[Tensor, "*batch 1 height width"]:
    """The mask without gaps narrower than about twice so many pixels."""
    return shrink(grow(mask, pixels), pixels)


def label_parts(mask: Bool[Tensor, "batch 1 height width"]) -> Int[Tensor, "batch 1 height width"]:
    """A number from 1 for each part that hangs together (diagonally too), the same for all its pixels; 0 outside."""
    count, area = len(mask), mask[0].numel()
    inside = mask.flatten(1)
    # Singles hold whole numbers up to 2^24, so pixels are numbered within their picture.
    labels = torch.arange(1, area + 1, device=mask.device).expand(count, area) * inside
    while True:
        spread = max_pool2d(labels.reshape(mask.shape).float(), 3, stride=1, padding=1).long().flatten(1) * inside
        # A label is the number of a pixel of the part: taking that pixel's label halves the way that is left.
        known = torch.cat([spread.new_zeros(count, 1), spread], dim=1)
        spread = known.gather(1, known.gather(1, spread))
        if torch.equal(spread, labels):
            break
        labels = spread
    apart = torch.arange(count, device=mask.device)[:, None] * area
    return ((labels + apart) * inside).reshape(mask.shape)


def drop_small_parts(mask: Bool[Tensor, "batch 1 height width"], share: float) -> Bool[Tensor, "batch 1 height width"]:
    """Without the parts that have less than a share of the pixels of their picture's largest part."""
    labels = label_parts(mask)
    sizes = torch.bincount(labels.flatten(), minlength=mask.numel() + 1)
    sizes[0] = 0
    size = sizes[labels]
    return mask & (size >= share * size.amax((1, 2, 3), keepdim=True))


def fill_small_holes(mask: Bool[Tensor, "batch 1 height width"], share: float) -> Bool[Tensor, "batch 1 height width"]:
    """With all outside parts filled that have less than a share of the picture's pixels."""
    labels = label_parts(~mask)
    sizes = torch.bincount(labels.flatten(), minlength=mask.numel() + 1)
    return mask | (sizes[labels] < share * mask.shape[-2] * mask.shape[-1])
