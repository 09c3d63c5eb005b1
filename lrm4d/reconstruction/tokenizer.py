"""From pictures to what the network reads: which patches hold something, and the channels of their pixels."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lrm4d.cameras import nearest_points_to_world_origin, sphere_spans
from lrm4d.gaussians4d import to_model_time
from lrm4d.views import Views

PIXEL_CHANNELS = 10
"""RGB, ray direction, the ray's nearest point to the origin, time (4D-LRM, arXiv 2506.18890)."""


@dataclass(frozen=True)
class Patches:
    """The kept patches of a batch of scenes, scene after scene, each with its pixels in row-major order.

    pixel = patch * patch. keep: which patches these are, of the whole grid. lengths: number of patches of each scene.
    scenes, views: whose patch it is.
    colors: straight RGB. alphas in [0, 1]. origins, directions: the pixels' rays. times: the frame's, in [-1, 1].
    spans: distances at which rays enter and leave the unit sphere. footprints: a pixel's width at distance 1.
    """

    keep: Bool[Tensor, "scene view row column"]
    lengths: list[int]
    scenes: Int[Tensor, "token"]
    views: Int[Tensor, "token"]
    colors: Float[Tensor, "token pixel 3"]
    alphas: Float[Tensor, "token pixel"]
    origins: Float[Tensor, "token 3"]
    directions: Float[Tensor, "token pixel 3"]
    times: Float[Tensor, "token"]
    spans: Float[Tensor, "token pixel 2"]
    footprints: Float[Tensor, "token"]

    def cut(self, maps: Float[Tensor, "scene view channel height width"]) -> Float[Tensor, "token pixel channel"]:
        """The same patches out of other maps of the views."""
        return _cut(maps.movedim(2, -1), self.keep)

    def channels(self) -> Float[Tensor, "token pixel 10"]:
        """The paper's ten input channels, the colour composited on white."""
        origins = self.origins[:, None].expand_as(self.directions)
        colors = self.alphas[..., None] * self.colors + 1 - self.alphas[..., None]
        nearest = nearest_points_to_world_origin(origins, self.directions)
        times = self.times[:, None, None].expand(*self.alphas.shape, 1)
        return torch.cat([colors * 2 - 1, self.directions, nearest, times], dim=-1)


def find_empty_patches(views: Views, patch: int) -> Bool[Tensor, "scene view row column"]:
    """Which patches show nothing: no alpha anywhere or, in a picture that is opaque all over, only white."""
    covered = views.alphas[:, :, 0] > 0
    opaque = (views.alphas == 1).flatten(2).all(dim=-1)[..., None, None]
    covered = torch.where(opaque, (views.images < 1).any(dim=2), covered)
    return ~covered.unflatten(-1, (-1, patch)).unflatten(-3, (-1, patch)).any(dim=-1).any(dim=-2)


def cut_patches(views: Views, patch: int, skip_empty: bool) -> Patches:
    """The patches of views with batch shape [scene, view]. ValueError if the size is no multiple of `patch`."""
    height, width = views.images.shape[-2:]
    if height % patch or width % patch:
        raise ValueError(
            f"pictures of {width} x {height} pixels cannot be cut into patches of {patch}: "
            f"resize them to multiples of {patch}, for example {width // patch * patch} x {height // patch * patch}."
        )
    if len(views.shape) != 2:
        raise ValueError(f"the network takes views of batch shape [scene, view], got {tuple(views.shape)}.")
    empty = find_empty_patches(views, patch)
    keep = ~empty if skip_empty else torch.ones_like(empty)
    scenes, view_indices, _, _ = keep.nonzero(as_tuple=True)
    directions = _cut(views.cameras.rays()[1], keep)
    token_origins = views.cameras.origins[scenes, view_indices]
    near, far = sphere_spans(token_origins[:, None], directions)
    return Patches(
        keep=keep,
        lengths=keep.flatten(1).sum(dim=1).tolist(),
        scenes=scenes,
        views=view_indices,
        colors=_cut(views.images.movedim(2, -1), keep),
        alphas=_cut(views.alphas.movedim(2, -1), keep)[..., 0],
        origins=token_origins,
        directions=directions,
        times=to_model_time(views.times)[scenes, view_indices],
        spans=torch.stack([near, far], dim=-1),
        footprints=1 / views.cameras.intrinsics[scenes, view_indices, 0, 0],
    )


def _cut(
    maps: Float[Tensor, "scene view height width channel"], keep: Bool[Tensor, "scene view row column"]
) -> Float[Tensor, "token pixel channel"]:
    patch = maps.shape[2] // keep.shape[2]
    blocks = maps.unflatten(3, (-1, patch)).unflatten(2, (-1, patch)).transpose(3, 4)
    return blocks[keep].flatten(1, 2)
