"""What fills a warp's holes without learning, and how well holes are filled.

Regions, of each made picture: **holes**, what the warp of the video leaves open; **object**, those within 4 pixels of
the true object, because most holes of an object on white are white; **seen**, the rest. Scores are means over pictures
of PSNR in dB and of the SSIM map over the region.
"""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from eval.fans import Fan
from eval.scores import Scores
from lrm4d.generation.geometry import Geometry
from lrm4d.generation.grid import ViewGrid
from lrm4d.generation.masks import to_inpainting_mask
from lrm4d.generation.metrics import reprojection_psnr
from lrm4d.losses import ssim_map
from lrm4d.metrics import masked_psnr, psnr, ssim
from lrm4d.video import to_bytes

Grids = Float[Tensor, "time view 3 height width"]
TELEA_RADIUS = 3
OVERLAPPING = 50
"""Degrees between views from which on they are not asked to agree."""


def fill_white(grid: ViewGrid) -> Grids:
    """The warp on white: the strong way to leave it alone, because what is around the objects is white."""
    return torch.where(grid.known, grid.images, 1.0)


def fill_nearest(grid: ViewGrid) -> Grids:
    """The video's own picture of the same moment, for every view."""
    return grid.images[:, :1].expand_as(grid.images)


def fill_telea(grid: ViewGrid) -> Grids:
    """OpenCV's fill of each picture (Telea, 2004), from what is seen and from a rim of white around the picture.

    The rim is what it may know of the white around; without, it smears the object over everything.
    """
    import cv2

    pictures = fill_white(grid).flatten(0, 1)
    holes = to_inpainting_mask(grid.known).flatten(0, 1)[:, 0]
    filled = []
    for picture, mask in zip(to_bytes(pictures), holes, strict=True):
        levels = np.pad(picture.movedim(0, -1).numpy(), ((1, 1), (1, 1), (0, 0)), constant_values=255)
        done = cv2.inpaint(levels, np.pad(mask.byte().numpy(), 1), TELEA_RADIUS, cv2.INPAINT_TELEA)
        filled.append(torch.from_numpy(done[1:-1, 1:-1]).movedim(-1, 0).float() / 255)
    return torch.stack(filled).unflatten(0, grid.shape)


def why_no_telea() -> str | None:
    """None if OpenCV is there; otherwise the reason and the remedy."""
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        return f"OpenCV cannot be imported ({error}); pip install opencv-python-headless"
    return None


FILLS: dict[str, Callable[[ViewGrid], Grids]] = {
    "warp on white": fill_white,
    "Telea": fill_telea,
    "nearest view": fill_nearest,
}


def score_regions(made: Grids, known: Bool[Tensor, "time view 1 height width"], fan: Fan) -> dict[str, Scores]:
    """{"all" or an angle: scores} of the views but the video."""
    made, truth, known, near = (x[:, 1:] for x in (made, fan.images, known, fan.objects))
    regions = {"holes": ~known, "object": ~known & near, "seen": known}
    pictures = {"psnr": psnr(made, truth), "ssim": ssim(made, truth)}
    similar = ssim_map(made, truth).mean(-3, keepdim=True)
    for name, region in regions.items():
        pictures[f"psnr_{name}"] = masked_psnr(made, truth, region)
        pictures[f"ssim_{name}"] = _masked_mean(similar, region)
    angles = fan.angles[1:]
    groups = {"all": list(range(len(angles)))}
    groups |= {str(angle): [i for i, other in enumerate(angles) if other == angle] for angle in sorted(set(angles))}
    return {
        group: {name: _mean(values[:, views]) for name, values in pictures.items()} for group, views in groups.items()
    }


def score_agreement(made: Grids, known: Bool[Tensor, "time view 1 height width"], fan: Fan) -> Scores:
    """How well overlapping views agree: PSNR of one, warped by true depth, against another, of all such pairs.

    agreement: wherever they see the same. agreement_holes: only what both had to make up. Empty without true depths.
    """
    poses = fan.cameras.origins[0]
    scores: dict[str, list[Tensor]] = {"agreement": [], "agreement_holes": []}
    for first, other in combinations(sorted(set(fan.geometries) - {0}), 2):
        cosine = torch.nn.functional.cosine_similarity(poses[first], poses[other], dim=0)
        if float(torch.rad2deg(cosine.clamp(-1, 1).acos())) > OVERLAPPING:
            continue
        for name, holes in (("agreement", False), ("agreement_holes", True)):
            for a, b in ((first, other), (other, first)):
                sides = [_narrow(fan.geometries[view], known[:, view], holes) for view in (a, b)]
                scores[name].append(reprojection_psnr(made[:, a], sides[0], made[:, b], sides[1]))
    return {name: _mean(torch.stack(values)) for name, values in scores.items() if values}


def _narrow(geometry: Geometry, known: Bool[Tensor, "time 1 height width"], holes: bool) -> Geometry:
    valid = geometry.valid & ~known if holes else geometry.valid
    return Geometry(geometry.depths, geometry.cameras, valid)


def _masked_mean(
    inner: Float[Tensor, "*batch 1 inner_height inner_width"], mask: Bool[Tensor, "*batch 1 height width"]
) -> Float[Tensor, "*batch"]:
    """The mean of a map that lacks a rim, over a mask of whole pictures; NaN where nothing is left of the mask."""
    rim = (mask.shape[-1] - inner.shape[-1]) // 2
    mask = mask[..., rim : mask.shape[-2] - rim, rim : mask.shape[-1] - rim]
    return (inner * mask).sum((-3, -2, -1)) / mask.sum((-3, -2, -1))


def _mean(values: Tensor) -> float | None:
    mean = float(values[values.isfinite()].mean())
    return None if mean != mean else round(mean, 5)
