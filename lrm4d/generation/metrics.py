"""Scores of generated views. What a table calls by these names is computed here, by these conventions.

- **RotErr, TransErr**: how far cameras of a generated video (found by a structure-from-motion program) are from those
  that were asked for, as CamI2V (arXiv 2410.15957) sums them over a trajectory. Lower is better.
- **reprojection**: PSNR between a view and another one of the same moment warped into it, where both see a surface.
- **flicker**: VBench's temporal flickering (arXiv 2311.17982), of videos from cameras at rest. 1 is best.
- **FID, FVD**: Frechet distance of Gaussians fitted to features of pictures or videos; the network is an argument,
  and a number means nothing without its name. **FVD-V**: the same moment's views are the frames of a video.
- **CLIP-F, CLIP-V**: cosine similarity of embeddings of neighbouring frames of a view, or neighbouring views of a
  moment; papers give it times 100.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from lrm4d.cameras import Cameras, invert_rigid
from lrm4d.generation.geometry import Geometry
from lrm4d.generation.warping import warp
from lrm4d.metrics import masked_psnr

PictureNetwork = Callable[[Float[Tensor, "picture 3 height width"]], Float[Tensor, "picture feature"]]
VideoNetwork = Callable[[Float[Tensor, "video frame 3 height width"]], Float[Tensor, "video feature"]]
SAME_SURFACE = 0.05
"""Share of the depth by which a warped surface may miss the one that is there; beyond, it is another one."""


def rotation_error(found: Cameras, wanted: Cameras) -> Float[Tensor, ""]:
    """RotErr in radians: angles between rotations relative to frame 0, summed over a trajectory's frames [time]."""
    a, b = _relative(found)[:, :3, :3], _relative(wanted)[:, :3, :3]
    # Of a rotation by an angle, |R - 1| = 2 sqrt(2) sin(angle / 2); this way small angles keep their digits.
    half = (a - b).flatten(1).norm(dim=-1) / 8**0.5
    return 2 * half.clamp(max=1).asin().sum()


def translation_error(found: Cameras, wanted: Cameras) -> Float[Tensor, ""]:
    """TransErr: distances between places relative to frame 0, summed over a trajectory's frames [time].

    Each trajectory is scaled by itself so that its place farthest from frame 0 is at distance 1, because structure
    from motion knows no scale; one that does not move stays at 0.
    """
    return (_scaled_places(found) - _scaled_places(wanted)).norm(dim=-1).sum()


def _relative(cameras: Cameras) -> Float[Tensor, "time 4 4"]:
    poses = cameras.camera_to_world.double()
    return invert_rigid(poses[:1]) @ poses


def _scaled_places(cameras: Cameras) -> Float[Tensor, "time 3"]:
    places = _relative(cameras)[:, :3, 3]
    return places / places.norm(dim=-1).max().clamp(min=1e-9)


def reprojection_psnr(
    images: Float[Tensor, "time 3 height width"],
    geometry: Geometry,
    others: Float[Tensor, "time 3 height width"],
    other_geometry: Geometry,
) -> Float[Tensor, "time"]:
    """PSNR in dB of one view warped into another, against the other, of each moment; NaN where they share nothing.

    Compared is where the warp lands on a valid pixel of the same surface: their depths differ by less than
    SAME_SURFACE. The geometries are known or estimated; a wrong one counts as disagreement.
    """
    warped = warp(images, geometry, other_geometry.cameras)
    apart = (warped.depths - other_geometry.depths).abs()
    same = warped.visibility & other_geometry.valid & (apart < SAME_SURFACE * other_geometry.depths)
    return masked_psnr(warped.images, others, same)


def temporal_flicker(videos: Float[Tensor, "*batch time 3 height width"]) -> Float[Tensor, "*batch"]:
    """1 minus the mean absolute difference of neighbouring frames, of pictures in [0, 1] (VBench: of 255 levels)."""
    return 1 - videos.diff(dim=-4).abs().mean(dim=(-4, -3, -2, -1))


def frechet_distance(first: Float[Tensor, "a feature"], second: Float[Tensor, "b feature"]) -> Float[Tensor, ""]:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of the means and covariances (unbiased) of features.

    ValueError for fewer than two of either. Below as many as there are dimensions the covariances have no full rank:
    such distances compare with none of another count.
    """
    if len(first) < 2 or len(second) < 2:
        raise ValueError(f"features of {len(first)} and {len(second)} samples; expected at least two of each.")
    first, second = first.double(), second.double()
    one, other = first.T.cov(correction=1), second.T.cov(correction=1)
    one, other = (c.reshape(first.shape[1], first.shape[1]) for c in (one, other))
    # C1 C2 has the eigenvalues of the symmetric root(C1) C2 root(C1), which are found without complex numbers.
    values, vectors = torch.linalg.eigh(one)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ other @ root).clamp(min=0).sqrt().sum()
    return (first.mean(0) - second.mean(0)).square().sum() + one.trace() + other.trace() - 2 * shared


def fid(
    made: Float[Tensor, "a 3 height width"], real: Float[Tensor, "b 3 height width"], network: PictureNetwork
) -> Float[Tensor, ""]:
    """Frechet distance of pictures in [0, 1], by the features of a network (Heusel et al. 2017: Inception's pool)."""
    return frechet_distance(network(made), network(real))


def fvd(
    made: Float[Tensor, "a frame 3 height width"], real: Float[Tensor, "b frame 3 height width"], network: VideoNetwork
) -> Float[Tensor, ""]:
    """Frechet distance of videos in [0, 1], by the features of a network (Unterthiner et al. 2018: I3D's logits)."""
    return frechet_distance(network(made), network(real))


def fvd_of_views(
    made: Float[Tensor, "a time view 3 height width"],
    real: Float[Tensor, "b time view 3 height width"],
    network: VideoNetwork,
) -> Float[Tensor, ""]:
    """FVD-V: the views of each moment of each grid, in their order, are a video's frames."""
    return fvd(made.flatten(0, 1), real.flatten(0, 1), network)


def frame_similarity(embeddings: Float[Tensor, "time view feature"]) -> Float[Tensor, ""]:
    """CLIP-F: mean cosine similarity of neighbouring moments of each view."""
    return cosine_similarity(embeddings[1:], embeddings[:-1], dim=-1).mean()


def view_similarity(embeddings: Float[Tensor, "time view feature"]) -> Float[Tensor, ""]:
    """CLIP-V: mean cosine similarity of neighbouring views of each moment."""
    return cosine_similarity(embeddings[:, 1:], embeddings[:, :-1], dim=-1).mean()
