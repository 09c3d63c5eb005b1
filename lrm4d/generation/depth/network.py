"""Depth from 4D scenes: rendered from one that is known, or from what the reconstruction network makes of one view."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.generation.depth.provider import Progress
from lrm4d.generation.geometry import Geometry
from lrm4d.rasterizer import Rendering
from lrm4d.views import Views

SOLID = 0.5
"""Coverage from which on a rendered pixel's depth is taken for a surface's."""


@runtime_checkable
class Scene(Protocol):
    """What renders as a Gaussians4D does."""

    def render(self, cameras: Cameras, times: Tensor) -> Rendering:
        """Pictures from cameras [view] at times [view] in [0, 1]."""
        ...


@torch.no_grad()
def render_geometry(scene: Scene, cameras: Cameras, times: Float[Tensor, "time"]) -> Geometry:
    """The geometry that a 4D scene shows to cameras [time] at times in [0, 1]; valid where it covers the pixel."""
    depths, valid = [], []
    for index in range(len(times)):  # one at a time: memory
        rendering = scene.render(cameras[index : index + 1], times[index : index + 1])
        depths.append(rendering.depth.to(times.device))
        valid.append(rendering.alpha.to(times.device) >= SOLID)
    return Geometry(torch.cat(depths), cameras, torch.cat(valid))


class NetworkDepth:
    """A DepthProvider: every frame is reconstructed alone, as one view, and the scene's depth is rendered back.

    reconstruct: views [view] to a 4D scene; `Reconstructor.reconstruct`. camera: batch shape [1], where every frame is
    taken from, as the network knows them (around the unit sphere); its picture size is changed to the frames'.
    cut_out: the alphas [time, 1, height, width] of frames; opaque everywhere unless given.
    """

    def __init__(
        self,
        reconstruct: Callable[[Views], Scene],
        camera: Cameras,
        cut_out: Callable[[Tensor], Tensor] | None = None,
    ):
        self.reconstruct, self.camera, self.cut_out = reconstruct, camera, cut_out

    def __call__(self, frames: Float[Tensor, "time 3 height width"], progress: Progress | None = None) -> Geometry:
        """See DepthProvider."""
        alphas = torch.ones_like(frames[:, :1]) if self.cut_out is None else self.cut_out(frames)
        camera, moment = self.camera.resize(frames.shape[3], frames.shape[2]), frames.new_zeros(1)
        parts = []
        for index in range(len(frames)):
            now = slice(index, index + 1)
            scene = self.reconstruct(Views(frames[now], alphas[now], camera, moment))
            part = render_geometry(scene, camera, moment)
            parts.append((part.depths, part.valid & (alphas[now] >= SOLID)))
            if progress:
                progress("depth", index + 1, len(frames))
        depths, valid = (torch.cat(values) for values in zip(*parts, strict=True))
        cameras = Cameras(
            camera.camera_to_world.expand(len(frames), 4, 4),
            camera.intrinsics.expand(len(frames), 3, 3),
            camera.width,
            camera.height,
        )
        return Geometry(depths, cameras, valid)
