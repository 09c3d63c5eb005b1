"""What tells a clip's depth: a file, a depth model, or a reconstruction network."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from lrm4d.generation.depth import DepthProvider, HuggingFaceDepth, NetworkDepth, load_geometry
from lrm4d.generation.foreground import cut_out_of_white
from lrm4d.generation.geometry import Geometry
from lrm4d.pipeline.clip import Clip
from lrm4d.reconstruction.reconstructor import Progress, Reconstructor, choose_device
from lrm4d.trajectories import Rig
from lrm4d.trajectories.state import cameras_of

MODELS = "hf:"


def by_network(geometry: Path | None, depth: str) -> bool:
    """Whether a reconstruction network tells the depth; it knows the object to be around its world's origin."""
    return geometry is None and not depth.startswith(MODELS)


def choose_depth(
    depth: str,
    fov: float,
    device: str,
    width: int,
    height: int,
    cut_out: Callable[[Tensor], Tensor] = cut_out_of_white,
) -> DepthProvider:
    """What estimates the depth of pictures of a size: "hf:MODEL", or a network's name or folder.

    fov: horizontal degrees, where a model does not tell it. cut_out: the object's alphas, for a network.
    """
    if depth.startswith(MODELS):
        return HuggingFaceDepth(depth.removeprefix(MODELS), str(choose_device(device)), fov)
    camera = cameras_of(Rig(elevation=0).to_vector()[None].to(torch.float64), width, height)
    return NetworkDepth(Reconstructor.from_pretrained(depth, device).reconstruct, camera, cut_out)


def find_geometry(
    clip: Clip, geometry: Path | None, depth: str, fov: float, device: str, progress: Progress | None = None
) -> Geometry:
    """The geometry of a clip's frames: of a file or folder that tells the whole video's, or a single picture's for a
    scene that rests; else estimated. ValueError for a file with fewer frames."""
    height, width = clip.frames.shape[-2:]
    if geometry is None:
        return choose_depth(depth, fov, device, width, height)(clip.on_white, progress)
    known = load_geometry(geometry, fov)
    places = clip.indices if len(known) > 1 else torch.zeros_like(clip.indices)
    if int(places[-1]) >= len(known):
        raise ValueError(f"{geometry}: depths of {len(known)} frames; expected at least {int(places[-1]) + 1}.")
    return known[places].resize(width, height)
