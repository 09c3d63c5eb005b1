"""Carrying out a plan: warp, ask an inpainter, keep its pictures, step by step; what was kept is never made again.

Pictures are rounded to 8 bits as soon as they are made. So what a later step sees is what lies in the folder, and a
run that was killed and started again ends with the same grid as one that was not.
"""

import hashlib
import json
import resource
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.checkpoint import read_json, write_text
from lrm4d.generation.depth.align import align_to_reference
from lrm4d.generation.depth.provider import DepthProvider, Progress
from lrm4d.generation.geometry import Geometry
from lrm4d.generation.grid import ViewGrid, picture_path, save_grid
from lrm4d.generation.inpainter import Inpainter, Sampling
from lrm4d.generation.plans import Cell, Plan, Step
from lrm4d.generation.route import spline, straight
from lrm4d.generation.warping import Warp, warp
from lrm4d.scenes.pictures import load_pictures, save_pictures
from lrm4d.video import to_bytes


@dataclass(frozen=True)
class Estimate:
    """What a run will take, from trying its largest step with one sampling step on black pictures.

    steps, pictures: that are left to make. largest: pictures that the largest step looks at. seconds: about, for all;
    smaller steps count in proportion. memory: the most bytes that the process (on CUDA: the device) has held so far.
    """

    steps: int
    pictures: int
    largest: int
    seconds: float
    memory: int

    def describe(self) -> str:
        """One line for people."""
        minutes = f"{self.seconds / 60:.1f} min" if self.seconds >= 60 else f"{self.seconds:.1f} s"
        return (
            f"{self.pictures} pictures in {self.steps} steps, at most {self.largest} at once: "
            f"about {minutes}, {self.memory / 1e9:.1f} GB"
        )


@torch.no_grad()
def complete(
    grid: ViewGrid,
    geometry: Geometry,
    plan: Plan,
    inpainter: Inpainter,
    sampling: Sampling | None = None,
    folder: str | Path | None = None,
    depth: DepthProvider | None = None,
    made_by: str = "",
    frames_per_second: float = 24.0,
    announce: Callable[[Estimate], None] | None = None,
    progress: Progress | None = None,
) -> ViewGrid:
    """The grid with every picture of every view made, in 8-bit levels; `known` stays what the video tells.

    grid: of start_grid (or with masks of one's own). geometry: of the video, view 0, with the pivot at the origin
    (placing.place). sampling: without, the inpainter's usual one. depth: tells the geometry of finished stops; needed
    where the plan has hops. folder: every step is saved there, a run that stopped goes on, and save_grid's files come
    last; it belongs to one run (ValueError for another one's). made_by: what the pictures depend on beside all this,
    such as the inpainter's name. announce: told the estimate before the first step. progress: told (stage "complete",
    sampling steps done, of all).
    """
    sampling = sampling or inpainter.usual
    folder = None if folder is None else Path(folder)
    route = spline(grid.cameras, plan.max_hop) if plan.max_hop else straight(grid.cameras)
    if any(route.origins) and depth is None:
        raise ValueError("the plan goes in hops: give a depth provider, which tells the geometry of each stop.")
    work = _Work(grid, geometry, route.cameras, route.origins, depth)
    steps = plan.steps(route, 1 - work.coverage)
    if folder is not None:
        _claim(folder, _fingerprint(grid, geometry, plan, sampling, made_by))
        work.resume(folder, steps)
    left = [step for step in steps if not work.has(step)]
    if announce and left:
        announce(_estimate(work, left, plan, inpainter, sampling))
    for index, step in enumerate(left):

        def report(_: str, done: int, total: int, index: int = index) -> None:
            if progress:
                progress("complete", index * total + done, len(left) * total)

        work.keep(step, _ask(work, step, plan, inpainter, sampling, report), folder)
    done = replace(grid, images=work.levels[:, : grid.shape[1]].float() / 255)
    if folder is not None:
        save_grid(folder, done, frames_per_second)
    return done


@torch.no_grad()
def estimate_completion(
    grid: ViewGrid, geometry: Geometry, plan: Plan, inpainter: Inpainter, sampling: Sampling | None = None
) -> Estimate:
    """What `complete` would take for such a grid, the first call's own time apart; hops' stops are not warped."""
    route = spline(grid.cameras, plan.max_hop) if plan.max_hop else straight(grid.cameras)
    work = _Work(grid, geometry, route.cameras, route.origins, None)
    steps = list(plan.steps(route, 1 - work.coverage))
    least = min(steps, key=lambda step: len(step.cells))
    small = replace(least, targets=least.targets[:1], context=least.context[:1])
    _estimate(work, [small], plan, inpainter, sampling or inpainter.usual)
    return _estimate(work, steps, plan, inpainter, sampling or inpainter.usual)


def complete_geometry(
    images: Float[Tensor, "time 3 height width"], warped: Warp, cameras: Cameras, depth: DepthProvider | None
) -> Geometry:
    """The geometry of completed pictures: the warp's where it is seen; elsewhere estimated, and fitted to the warp's.

    Fitted in inverse depth, a scale and a shift for each frame (SEE4D). Without `depth`, nothing is known elsewhere.
    """
    if depth is None:
        return Geometry(warped.depths, cameras, warped.visibility)
    estimate = depth(images)
    inverse = torch.where(estimate.valid, 1 / estimate.depths.clamp(min=1e-12), 0.0)
    known = torch.where(warped.visibility, 1 / warped.depths.clamp(min=1e-12), 0.0)
    fitted = align_to_reference(inverse, known, warped.visibility & estimate.valid)
    valid = warped.visibility | (estimate.valid & (fitted > 0))
    depths = torch.where(warped.visibility, warped.depths, 1 / fitted.clamp(min=1e-12))
    return Geometry(depths.masked_fill(~valid, 0), cameras, valid)


class _Work:
    """The pictures of all stations as far as they are made, and what follows from them."""

    def __init__(
        self,
        grid: ViewGrid,
        geometry: Geometry,
        cameras: Cameras,
        origins: tuple[int, ...],
        depth: DepthProvider | None,
    ):
        self.grid, self.cameras, self.origins, self.depth = grid, cameras, origins, depth
        moments, stations = cameras.shape
        self.levels = torch.zeros(moments, stations, *grid.images.shape[2:], dtype=torch.uint8)
        self.levels[:, 0] = to_bytes(grid.images[:, 0])
        self.made = torch.zeros(moments, stations, dtype=torch.bool)
        self.geometries: dict[int, Geometry] = {0: geometry}
        self.warps: dict[int, Warp] = {}
        known = [grid.known.float().mean((2, 3, 4))]
        for stop in range(grid.shape[1], stations):  # one at a time: memory
            known.append(warp(grid.images[:, 0], geometry, cameras[:, stop]).coverage[:, None])
        self.coverage = torch.cat(known, dim=1)

    def has(self, step: Step) -> bool:
        """Whether all its pictures are made."""
        return all(bool(self.made[cell.time, cell.station]) for cell in step.targets)

    def pictures(self, station: int) -> Float[Tensor, "time 3 height width"]:
        """A station's video."""
        return self.levels[:, station].float() / 255

    def warps_to(self, stations: Iterable[int]) -> dict[int, Warp]:
        """What stations see of those before them; of the video itself, what the grid has. Kept until others are asked
        for: windows of one station follow each other."""
        self.warps = {station: self.warps.get(station) or self._warp_to(station) for station in stations}
        return self.warps

    def _warp_to(self, station: int) -> Warp:
        origin = self.origins[station]
        if origin == 0 and station < self.grid.shape[1]:
            images, seen = self.grid.images[:, station], self.grid.known[:, station]
            return Warp(images, seen, torch.zeros_like(images[:, :1]))
        return warp(self.pictures(origin), self.geometry_at(origin), self.cameras[:, station])

    def geometry_at(self, station: int) -> Geometry:
        """A finished station's geometry."""
        if station not in self.geometries:
            assert self.depth is not None, "complete() asks for one where there are hops"
            origin, cameras = self.origins[station], self.cameras[:, station]
            warped = warp(self.pictures(origin), self.geometry_at(origin), cameras)
            self.geometries[station] = complete_geometry(self.pictures(station), warped, cameras, self.depth)
        return self.geometries[station]

    def keep(self, step: Step, images: Float[Tensor, "target 3 height width"], folder: Path | None) -> None:
        """Take a step's pictures, and write them."""
        levels = to_bytes(images).cpu()
        for cell, picture in zip(step.targets, levels, strict=True):
            self.levels[cell.time, cell.station] = picture
            self.made[cell.time, cell.station] = True
        if folder is not None:
            save_pictures([self.path(folder, cell) for cell in step.targets], levels.float() / 255)

    def path(self, folder: Path, cell: Cell) -> Path:
        """Where a picture is kept; the stops between the views have a folder of their own."""
        return picture_path(folder / ("images" if cell.station < self.grid.shape[1] else "hops"), *cell)

    def resume(self, folder: Path, steps: tuple[Step, ...]) -> None:
        """Read the pictures of all steps that were finished."""
        for step in steps:
            paths = [self.path(folder, cell) for cell in step.targets]
            if all(path.is_file() for path in paths):
                images, alphas = load_pictures(paths).split([3, 1], dim=1)
                self.keep(step, images * alphas + 1 - alphas, None)


def _ask(
    work: _Work, step: Step, plan: Plan, inpainter: Inpainter, sampling: Sampling, progress: Progress | None
) -> Float[Tensor, "target 3 height width"]:
    """A step's pictures."""
    context = torch.stack([work.levels[cell.time, cell.station] for cell in step.context]).float() / 255
    warps = work.warps_to(dict.fromkeys(cell.station for cell in step.targets))
    images = torch.stack([warps[cell.station].images[cell.time] for cell in step.targets])
    seen = torch.stack([warps[cell.station].visibility[cell.time] for cell in step.targets])
    images = torch.cat([context, images]).clamp(0, 1)
    seen = torch.cat([torch.ones_like(context[:, :1], dtype=torch.bool), seen])
    layout = step.layout(plan.rule, plan.warp_slots)
    cameras = _cameras_of(work, step)
    return inpainter(layout, images[None], seen[None], cameras, progress=progress, **asdict(sampling))[0]


def _cameras_of(work: _Work, step: Step) -> Cameras:
    """The cameras [1, picture] of a step's cells."""
    stations, times = zip(*step.cells, strict=True)
    return work.cameras[torch.tensor(times), torch.tensor(stations)].reshape(1, -1)


def _estimate(work: _Work, steps: list[Step], plan: Plan, inpainter: Inpainter, sampling: Sampling) -> Estimate:
    """Try the largest step: what runs out of memory does so now and not after hours."""
    largest = max(steps, key=lambda step: len(step.cells))
    images = torch.zeros(1, len(largest.cells), *work.grid.images.shape[2:])
    seen = torch.ones_like(images[:, :, :1], dtype=torch.bool)
    layout, cameras = largest.layout(plan.rule, plan.warp_slots), _cameras_of(work, largest)
    start = time.perf_counter()
    inpainter(layout, images, seen, cameras, **asdict(replace(sampling, steps=1)))
    seconds = (time.perf_counter() - start) * sampling.steps
    share = sum(len(step.cells) for step in steps) / len(largest.cells)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        memory = torch.cuda.max_memory_allocated()
    pictures = sum(len(step.targets) for step in steps)
    return Estimate(len(steps), pictures, len(largest.cells), seconds * share, memory)


def _fingerprint(grid: ViewGrid, geometry: Geometry, plan: Plan, sampling: Sampling, made_by: str) -> dict:
    """What a run's pictures depend on."""
    digest = hashlib.sha256()
    cameras = (grid.cameras, geometry.cameras)
    tensors = [grid.images, grid.known, grid.times, geometry.depths, geometry.valid]
    for tensor in (*tensors, *(values for c in cameras for values in (c.camera_to_world, c.intrinsics))):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    settings = {"plan": asdict(plan), "sampling": asdict(sampling), "made_by": made_by}
    return {**settings, "inputs": digest.hexdigest()}


def _claim(folder: Path, fingerprint: dict) -> None:
    """Write down whose folder this is, or find that it is this run's."""
    file = folder / "run.json"
    if not file.exists():
        if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise ValueError(f"{folder}: holds files, but no run.json of an earlier run; give an empty folder.")
        write_text(file, json.dumps(fingerprint, indent=1) + "\n")
        return
    other = read_json(file)
    differing = [key for key in fingerprint if other.get(key) != fingerprint[key]]
    if differing:
        raise ValueError(
            f"{file}: this folder is of another run, which differs in {', '.join(differing)}; give another folder, or "
            "delete it."
        )
