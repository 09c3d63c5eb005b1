"""One video to synchronized videos from other cameras: `lrm4d generate`, and the middle of `lrm4d video-to-4d`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.generation.backends import choose_sampling, load_inpainter
from lrm4d.generation.carving import carve_grid
from lrm4d.generation.completion import Estimate, complete
from lrm4d.generation.depth import DepthProvider
from lrm4d.generation.geometry import Geometry
from lrm4d.generation.grid import ViewGrid, load_target_cameras, start_grid
from lrm4d.generation.inpainter import Inpainter, Sampling
from lrm4d.generation.placing import cameras_along, place, place_cameras
from lrm4d.generation.presets import Preset, load_preset
from lrm4d.reconstruction.reconstructor import Progress, choose_device
from lrm4d.trajectories import parse_bank


@dataclass(frozen=True)
class Maker:
    """What makes views. preset: where to, and in which order. made_by: what the inpainter is called, for resuming.
    drop_edges: leave out what depth edges make unsure."""

    preset: Preset
    inpainter: Inpainter
    sampling: Sampling
    made_by: str = ""
    drop_edges: bool = False


def load_maker(
    preset: str | Path,
    overrides: list[str],
    inpainter: str,
    lora: str | None = None,
    device: str = "auto",
    drop_edges: bool = False,
    **sampling: Any,
) -> Maker:
    """A maker by names; sampling: of `Sampling`, None is the inpainter's usual. ValueError for what is not there."""
    chosen = load_preset(preset, overrides)
    loaded = load_inpainter(inpainter, str(choose_device(device)), lora)
    made_by = f"{inpainter} + {lora}" if lora else inpainter
    return Maker(chosen, loaded, choose_sampling(loaded, **sampling), made_by, drop_edges)


def view_from(
    known: Geometry, pivot: Float[Tensor, "3"] | None, bank: str, file: Path | None = None
) -> tuple[Geometry, Cameras]:
    """The geometry with its pivot (of its world; else the foreground's) at the origin, and the cameras [view] or
    [time, view] to go to. A file's cameras are in the geometry's own world, and are moved with it."""
    placed = place(known, pivot)
    if file is None:
        chosen = parse_bank(bank)
        return placed, cameras_along(chosen, placed, chosen.natural_count)
    targets = load_target_cameras(file, len(known), known.cameras.width, known.cameras.height)
    return placed, place_cameras(targets, known, placed)


def generate(
    frames: Float[Tensor, "time 3 height width"],
    geometry: Geometry,
    targets: Cameras,
    maker: Maker,
    folder: str | Path,
    alphas: Float[Tensor, "time 1 height width"] | None = None,
    depth: DepthProvider | None = None,
    frames_per_second: float = 24.0,
    announce: Callable[[Estimate], None] | None = None,
    progress: Progress | None = None,
) -> ViewGrid:
    """The grid of a video, of which every picture is made and lies in a folder; a run that stopped goes on.

    geometry, targets: of view_from. alphas: of an object on white; what lies beside its silhouettes is then known to
    be white. The rest: see `complete`.
    """
    known = geometry.without_edges() if maker.drop_edges else geometry
    grid = start_grid(frames, known, targets, torch.linspace(0, 1, len(frames)))
    if alphas is not None:
        grid = carve_grid(grid, alphas, object_radius(geometry))[0]
    plan, sampling = maker.preset.plan, maker.sampling
    return complete(
        *(grid, known, plan, maker.inpainter, sampling, folder, depth, maker.made_by, frames_per_second),
        announce=announce,
        progress=progress,
    )


def object_radius(geometry: Geometry) -> float:
    """Within how far of the world's origin an object of this geometry lies, with some room for what is not seen."""
    distances = geometry.points()[geometry.valid[:, 0]].norm(dim=-1)
    if not len(distances):
        raise ValueError("geometry: no pixel's depth is valid, so nothing can be shown to other cameras.")
    return 1.15 * distances[:: max(1, len(distances) // 100_000)].quantile(0.99).item()
