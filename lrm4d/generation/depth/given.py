"""Geometry from files, in our layout or another program's (layouts.py), and to files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.checkpoint import atomic_path
from lrm4d.generation.depth.layouts import Given, read_given
from lrm4d.generation.depth.provider import Progress
from lrm4d.generation.geometry import DEFAULT_FOV, Geometry, static_cameras


def load_geometry(path: str | Path, fov: float = DEFAULT_FOV) -> Geometry:
    """The geometry in a file or folder of any layout of layouts.py.

    Without cameras in it: one at rest, with this field of view (horizontal, degrees). Raises ValueError for what is
    broken or does not fit together.
    """
    path = Path(path)
    given = read_given(path)
    depths = torch.from_numpy(given.depths)[:, None]
    valid = depths.isfinite() & (depths > 0)
    if given.valid is not None:
        marked = given.valid.reshape(-1, 1, *given.valid.shape[-2:])
        if marked.shape != depths.shape:
            raise ValueError(f"{path}: a mask of shape {given.valid.shape} for depths of {given.depths.shape}.")
        valid &= torch.from_numpy(marked.astype(bool))
    return Geometry(depths.masked_fill(~valid, 0.0), _read_cameras(path, given, fov), valid)


def _read_cameras(path: Path, given: Given, fov: float) -> Cameras:
    count, height, width = given.depths.shape
    cameras = static_cameras(count, width, height, fov)
    return replace(
        cameras,
        camera_to_world=_read_matrices(path, "camera_to_world", given.camera_to_world, cameras.camera_to_world),
        intrinsics=_read_matrices(path, "intrinsics", given.intrinsics, cameras.intrinsics),
    )


def _read_matrices(path: Path, name: str, values: np.ndarray | None, otherwise: Tensor) -> Tensor:
    """Values as tensors of the shape of others, which stand for them if they are not given; one counts for all."""
    if values is None:
        return otherwise
    shape = tuple(otherwise.shape)
    fits = values.shape in (shape, (1, *shape[1:]), shape[1:]) and values.dtype.kind in "fiu"
    if not fits or not np.isfinite(values).all():
        raise ValueError(f"{path}: {name} of shape {values.shape}; expected {shape}, finite, one for each frame.")
    return torch.from_numpy(values.astype(np.float32)).expand(shape)


def save_geometry(path: str | Path, geometry: Geometry) -> None:
    """Write our own layout (.npz), atomically; load_geometry reads it back exactly."""
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"{path}: geometry is written as .npz; give such a name.")
    arrays = {
        "depths": geometry.depths[:, 0],
        "valid": geometry.valid[:, 0],
        "camera_to_world": geometry.cameras.camera_to_world,
        "intrinsics": geometry.cameras.intrinsics,
    }
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **{name: value.detach().cpu().numpy() for name, value in arrays.items()})


class GivenDepth:
    """A DepthProvider: the geometry of a file, at the frames' size. A single frame stands for a scene that rests."""

    def __init__(self, path: str | Path, fov: float = DEFAULT_FOV):
        self.path, self.geometry = path, load_geometry(path, fov)

    def __call__(self, frames: Float[Tensor, "time 3 height width"], progress: Progress | None = None) -> Geometry:
        """See DepthProvider; ValueError where the file is of another length."""
        geometry = self.geometry
        if len(geometry) == 1:
            geometry = geometry[torch.zeros(len(frames), dtype=torch.long)]
        if len(geometry) != len(frames):
            raise ValueError(f"{self.path}: depths of {len(geometry)} frames, and {len(frames)} frames of video.")
        return geometry.resize(frames.shape[3], frames.shape[2])
