"""Fans: one video and true pictures of the same moments from cameras beside it, as data_tools/render_assets.py makes.

A scene folder whose frames name their view, all views having the same moments, with depth/VIEW.npz of the views whose
true depth is known.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.generation.depth import load_geometry
from lrm4d.generation.geometry import Geometry
from lrm4d.generation.route import turns
from lrm4d.metrics import object_mask
from lrm4d.scenes import load_scene

SOURCE = "front"


@dataclass(frozen=True)
class Fan:
    """The views of a scene, of which 0 is the video that is given; pictures on white, [time, view, ...].

    names: of the views. times: [time] in [0, 1]. geometries: the true ones, by the view's number.
    """

    names: tuple[str, ...]
    images: Float[Tensor, "time view 3 height width"]
    alphas: Float[Tensor, "time view 1 height width"]
    cameras: Cameras
    times: Float[Tensor, "time"]
    geometries: dict[int, Geometry]

    @property
    def angles(self) -> list[int]:
        """By how many degrees, rounded, each view is turned around the world's origin from the video's camera."""
        return [
            round(float(turns(self.cameras[:, :1], self.cameras)[:, view].amax())) for view in range(len(self.names))
        ]

    @property
    def objects(self) -> Bool[Tensor, "time view 1 height width"]:
        """True where the object is, and within 4 pixels."""
        return object_mask(self.alphas)


def load_fan(folder: Path, views: tuple[str, ...], moments: int | None = None) -> Fan:
    """The video (SOURCE) and views of a scene folder, at so many moments, evenly chosen; None takes all.

    ValueError where a view or its moments are missing, or the video's depth.
    """
    frames: dict[str, dict[int, str]] = {}
    scene = load_scene(folder)
    for frame in scene.frames:
        frames.setdefault(frame.view, {})[frame.index] = frame.file_path
    names = (SOURCE, *views)
    missing = [name for name in names if name not in frames]
    if missing:
        raise ValueError(f"{folder}: has no view {', '.join(missing)}; there are {', '.join(sorted(frames))}.")
    shared = sorted(set.intersection(*(set(frames[name]) for name in names)))
    if not shared:
        raise ValueError(f"{folder}: the views {', '.join(names)} have no moment in common.")
    count = min(moments or len(shared), len(shared))
    chosen = torch.linspace(0, len(shared) - 1, count).round().long().tolist()
    paths = [frames[name][shared[index]] for index in chosen for name in names]
    read = scene.views(paths)
    cells = (count, len(names))
    geometries = {}
    for number, name in enumerate(names):
        file = folder / "depth" / f"{name}.npz"
        if file.is_file() or not number:
            geometry = load_geometry(file)
            if len(geometry) != len(frames[name]):
                raise ValueError(f"{file}: {len(geometry)} depths for {len(frames[name])} pictures of the view.")
            places = [sorted(frames[name]).index(shared[index]) for index in chosen]
            geometries[number] = geometry[torch.tensor(places)]
    return Fan(
        names,
        read.composite(torch.ones(3)).unflatten(0, cells),
        read.alphas.unflatten(0, cells),
        read.cameras.reshape(*cells),
        read.times.unflatten(0, cells)[:, 0],
        geometries,
    )
