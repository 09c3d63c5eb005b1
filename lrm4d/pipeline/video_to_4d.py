"""The whole chain: a video of an object in, a 4D scene to look at from anywhere out.

Stages, each kept in the folder and not made again by a run that goes on: the object cut out and framed (frames/), its
depth (geometry.npz), its views from other cameras (grid/), the 4D scene.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.checkpoint import read_json, write_text
from lrm4d.export.contact_sheet import grid_sheet, spread
from lrm4d.generation.carving import see_background
from lrm4d.generation.completion import estimate_completion
from lrm4d.generation.depth import load_geometry, save_geometry
from lrm4d.generation.foreground import cut_out_of_white, find_foreground, is_on_white, take_from_white
from lrm4d.generation.framing import Framing, frame_object
from lrm4d.generation.geometry import DEFAULT_FOV, Geometry, static_cameras
from lrm4d.generation.grid import ViewGrid, load_grid, picture_path, start_grid
from lrm4d.generation.inpainter import NanoInpainter
from lrm4d.pipeline.clip import Clip, read_clip, read_masks
from lrm4d.pipeline.depth import by_network, choose_depth, find_geometry
from lrm4d.pipeline.generate import Maker, generate, object_radius, view_from
from lrm4d.pipeline.reconstruct import Choice, Refine, reconstruct_scene
from lrm4d.pipeline.stages import Stages
from lrm4d.pretrained import FOR_MADE_VIEWS
from lrm4d.reconstruction.reconstructor import Progress, Reconstructor
from lrm4d.refinement.distillation import DistillationConfig
from lrm4d.refinement.lessons import prepare_lessons, teach, turns_between
from lrm4d.refinement.refiner import ExtraLoss
from lrm4d.scenes import load_scene
from lrm4d.scenes.pictures import load_pictures, save_picture, save_pictures
from lrm4d.views import Views

LOOKED_AT = 24
"""Frames, at least, from which the background is told."""
SOLID = 0.9
"""Alpha from which on a pixel's depth is warped: the rim's colours are mixed with the background's."""
RECONSTRUCTION = 1.5
"""Times as long as in a scene of two views a view takes in one of many: attention grows."""
HELD_OUT = 8
"""Pictures at most that are rendered and scored beside the inputs."""


@dataclass(frozen=True)
class Order:
    """What is made of a video. start, seconds: the part of it. frames: chosen evenly from that. size: pixels of the
    square pictures. masks: of the object. geometry: a file with depth; else depth: a network or hf:MODEL. fov: of the
    video, degrees, where nothing tells it. inputs: pictures that the scene is reconstructed from, at most."""

    start: float = 0.0
    seconds: float = 3.0
    frames: int = 12
    size: int = 128
    masks: Path | None = None
    geometry: Path | None = None
    depth: str = "nano"
    fov: float = DEFAULT_FOV
    inputs: int = 36

    def __post_init__(self) -> None:
        if self.frames < 2 or self.size < 16 or not self.seconds > 0 or self.start < 0 or self.inputs < 1:
            raise ValueError(
                f"{self.frames} frames of {self.seconds:g} s from {self.start:g} s, size {self.size}, {self.inputs} "
                "inputs: expected at least 2 frames, more than 0 s from 0 on, 16 pixels and an input."
            )


@dataclass
class Made:
    """What a run did. cut_out: what told the object. share: of the pictures. framing: the square of the video's
    pictures, resized to at most 512 pixels, that is kept. seen: how much of each view the video tells. seconds: of
    each stage that was not there already. scene: the reconstruction's own report."""

    video: str
    output: str
    cut_out: str = ""
    share: float = 0.0
    framing: dict[str, int] = field(default_factory=dict)
    frames: int = 0
    frames_per_second: float = 0.0
    seen: list[float] = field(default_factory=list)
    estimate: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    scene: dict = field(default_factory=dict)


def video_to_4d(
    video: str | Path,
    output: str | Path,
    maker: Maker,
    reconstructor: Reconstructor,
    order: Order = Order(),
    model_name: str = FOR_MADE_VIEWS,
    device: str = "auto",
    refine: Refine | None = None,
    teaching: DistillationConfig | None = None,
    announce: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Made:
    """Turn a video into a 4D scene, in a folder that belongs to this run.

    Writes frames/ (the object, RGBA), geometry.npz, grid/ (the views: pictures with alpha, videos, transforms.json),
    views.png, and reconstruct_scene's files: scene.safetensors, scene.html, orbit.mp4, contact_sheet.png, renders/;
    report.json comes last. refine: see reconstruct_scene. teaching: refine is a Refinement, and while it fits, the
    inpainter is asked about cameras between the views. announce: told what was assumed, and an estimate before the
    long stages. ValueError for a video without an object that can be told, for the folder of another run, and for
    teaching that nothing would come of.
    """
    if teaching is not None and refine is None:
        raise ValueError("teaching needs a refinement to be taught: add --refine SECONDS, or leave out --teach.")
    if teaching is not None and not isinstance(maker.inpainter, NanoInpainter):
        raise ValueError("only the small inpainter teaches so far: leave out --teach, or take --inpainter nano.")
    chain = _Chain(
        Path(video), Path(output), maker, reconstructor, order, device, announce or (lambda _: None), progress
    )
    frames, alphas = chain.timed("cut out", chain.frames)
    if not chain.stages.has("views"):
        chain.estimate(frames, alphas)
    known = chain.timed("depth", lambda: chain.geometry(frames, alphas))
    grid = chain.timed("views", lambda: chain.views(frames, alphas, known))
    chain.reconstruct(grid, model_name, refine, teaching, (frames, known))
    write_text(chain.output / "report.json", json.dumps(asdict(chain.made), indent=1) + "\n")
    return chain.made


class _Chain:
    """A run on its way."""

    def __init__(
        self,
        video: Path,
        output: Path,
        maker: Maker,
        reconstructor: Reconstructor,
        order: Order,
        device: str,
        announce: Callable[[str], None],
        progress: Progress | None,
    ):
        patch = reconstructor.model.config.patch
        if order.size % patch:
            raise ValueError(f"size {order.size}: expected a multiple of {patch}, the reconstruction network's patch.")
        self.video, self.output, self.maker, self.reconstructor = video, output, maker, reconstructor
        self.order, self.device, self.announce, self.progress = order, device, announce, progress
        self.stages = Stages(output, describe_order(video, order, maker))
        self.made = Made(str(video), str(output))

    def timed(self, stage: str, work: Callable[[], object]):
        """What a stage makes, or has made before."""
        started = time.perf_counter()
        result = work()
        self.made.seconds[stage] = round(time.perf_counter() - started, 3)
        return result

    def read(self, at_least: int = 0) -> Clip:
        """The chosen frames and, evenly between them, as many more as to have at_least."""
        order = self.order
        clip = read_clip(self.video, None, order.start, order.seconds)
        if len(clip) < 2:
            raise ValueError(f"{self.video}: one frame between {order.start:g} s and {order.seconds:g} s more.")
        count = min(order.frames, len(clip))
        return clip.choose((count - 1) * max(1, -(-at_least // count)) + 1)

    def frames(self) -> tuple[Float[Tensor, "time 3 height width"], Float[Tensor, "time 1 height width"]]:
        """The object's pictures, on white, and their alphas."""
        file = self.output / "frames.json"
        if not self.stages.has("frames"):
            self._cut_out(file)
        told = read_json(file)
        for name in ("cut_out", "share", "framing", "frames", "frames_per_second"):
            setattr(self.made, name, told[name])
        pictures = load_pictures([self.output / "frames" / f"{i:04}.png" for i in range(self.made.frames)])
        self.announce(
            f"{self.made.frames} frames; object by {self.made.cut_out}: {100 * self.made.share:.1f} % of the pictures"
        )
        alphas = pictures[:, 3:]
        return pictures[:, :3] * alphas + 1 - alphas, alphas

    def _cut_out(self, file: Path) -> None:
        clip = chosen = self.read()
        if self.order.masks is None and bool((clip.alphas == 1).all()) and not is_on_white(clip.frames):
            clip = self.read(LOOKED_AT)
        masks = None if self.order.masks is None else read_masks(self.order.masks, clip)
        found = find_foreground(clip.frames, clip.alphas, masks)
        framing = frame_object(found.alphas)
        kept = (clip.indices[:, None] - chosen.indices).abs().argmin(dim=0)
        size = self.order.size
        alphas = framing.crop(found.alphas[kept], size, 0.0)
        white = framing.crop(found.on_white(clip.frames)[kept], size, 1.0)
        colors = ((white - (1 - alphas)) / alphas.clamp(min=1e-3)).clamp(0, 1)
        paths = [self.output / "frames" / f"{i:04}.png" for i in range(len(white))]
        save_pictures(paths, torch.cat([colors, alphas], dim=1))
        told = {"cut_out": found.how, "share": round(found.share, 4), "framing": asdict(framing)}
        told |= {"frames": len(white), "frames_per_second": chosen.rate}
        write_text(file, json.dumps(told, indent=1) + "\n")
        self.stages.finish("frames", [file, *paths])

    def geometry(self, frames: Tensor, alphas: Tensor) -> Geometry:
        """The depth of the object's pictures, in its own world."""
        file = self.output / "geometry.npz"
        if not self.stages.has("depth"):
            save_geometry(file, self._find_depth(frames, alphas))
            self.stages.finish("depth", [file])
        return load_geometry(file)

    def _find_depth(self, frames: Tensor, alphas: Tensor) -> Geometry:
        order, size = self.order, self.order.size
        if self.by_network:
            provider = choose_depth(order.depth, order.fov, self.device, size, size, lambda _: alphas)
            known = provider(frames, self.progress)
        else:
            whole = find_geometry(self.read(), order.geometry, order.depth, order.fov, self.device, self.progress)
            known = Framing(**self.made.framing).crop_geometry(whole, size)
        return replace(known, valid=known.valid & (alphas >= SOLID))

    @property
    def by_network(self) -> bool:
        """Whether a reconstruction network tells the depth: it knows the object to be in the unit sphere."""
        return by_network(self.order.geometry, self.order.depth)

    def place(self, known: Geometry) -> tuple[Geometry, Cameras]:
        """The geometry around the origin, in the unit sphere, and the cameras to go to."""
        bank = self.maker.preset.bank
        if self.by_network:
            return view_from(known, torch.zeros(3), bank)
        placed, targets = view_from(known, known.pivot(known.valid), bank)
        factor = 1 / object_radius(placed)
        poses = targets.camera_to_world.clone()
        poses[..., :3, 3] *= factor
        return placed.recentre(torch.zeros(3), factor), replace(targets, camera_to_world=poses)

    def views(self, frames: Tensor, alphas: Tensor, known: Geometry) -> ViewGrid:
        """The grid of views, whose pictures have alphas."""
        folder = self.output / "grid"
        if not self.stages.has("views"):
            placed, targets = self.place(known)
            size, plan = self.order.size, self.maker.preset.plan
            stops = None
            if plan.max_hop:
                # What tells the video's depth may be a file, which knows nothing of the stops on the way.
                name = "nano" if self.order.geometry else self.order.depth
                stops = choose_depth(name, self.order.fov, self.device, size, size)
            grid = generate(
                *(frames, placed, targets, self.maker, folder, alphas, stops, self.made.frames_per_second),
                progress=self.progress,
            )
            paths = save_with_alphas(folder, grid, alphas, object_radius(placed))
            save_picture(self.output / "views.png", grid_sheet(grid.images, grid.known, self.video.name))
            self.stages.finish("views", [*paths, folder / "transforms.json", self.output / "views.png"])
        grid = load_grid(folder)
        self.made.seen = [round(share, 4) for share in grid.known.float().mean((0, 2, 3, 4)).tolist()]
        self.made.files |= {"grid": str(folder), "views": str(self.output / "views.png")}
        return grid

    def teach(self, config: DistillationConfig, grid: ViewGrid, frames: Tensor, known: Geometry) -> ExtraLoss:
        """What the inpainter has to say of cameras between those of the views."""
        placed, _ = self.place(known)
        turns = turns_between(grid.cameras[0])
        return teach(prepare_lessons(frames, placed, grid.times, turns, self.maker.inpainter), config)

    def reconstruct(
        self,
        grid: ViewGrid,
        model_name: str,
        refine: Refine | None,
        teaching: DistillationConfig | None,
        video: tuple[Tensor, Geometry],
    ) -> None:
        """The scene and all its files. video: its frames and what is known of their depth, for teaching."""
        inputs, held_out = choose_inputs(*grid.shape, self.order.inputs)
        asked = {"model": model_name, "inputs": self.order.inputs, "refine": None if refine is None else str(refine)}
        asked |= {"teaching": str(teaching)} if teaching else {}
        file = self.output / "scene.json"
        if not self.stages.has("scene", **asked):
            if teaching:
                refine = replace(refine, extra_loss=self.teach(teaching, grid, *video))
            scene = load_scene(self.output / "grid")
            reason = f"{len(inputs)} of {grid.shape[0] * grid.shape[1]} pictures, held-out ones as targets"
            choice = Choice(tuple(map(_name, inputs)), tuple(map(_name, held_out or inputs)), reason)
            report = reconstruct_scene(
                *(self.reconstructor, scene, choice, self.output, model_name),
                progress=self.progress,
                seconds=grid.shape[0] / self.made.frames_per_second,
                refine=refine,
                title=self.video.stem,
            )
            write_text(file, json.dumps(report.to_json(), indent=1) + "\n")
            written = [report.files[name] for name in ("scene", "html", "contact_sheet", "video")]
            self.stages.finish("scene", [file, *written, *report.renders], **asked)
            self.made.seconds |= report.seconds
        self.made.scene = read_json(file)
        self.made.files = self.made.scene["files"] | self.made.files

    def estimate(self, frames: Tensor, alphas: Tensor) -> None:
        """Announce how long all will take, from trying one frame's depth and the plan's largest step."""
        seconds, size, count = 0.0, self.order.size, len(frames)
        near = Geometry(torch.full_like(alphas, 2.7), static_cameras(count, size, size, 49.1), alphas >= SOLID)
        placed, targets = view_from(near, torch.tensor([0.0, 2.7, 0.0]), self.maker.preset.bank)
        grid = start_grid(frames, placed, targets, torch.linspace(0, 1, count))
        plan, sampling = self.maker.preset.plan, self.maker.sampling
        making = estimate_completion(grid, placed, plan, self.maker.inpainter, sampling)
        views = Views(frames[:2], alphas[:2], near.cameras[:2], torch.tensor([0.0, 1.0]))
        self.reconstructor.reconstruct(views[:1])
        started = time.perf_counter()
        self.reconstructor.reconstruct(views)
        a_view = (time.perf_counter() - started) / 2
        seconds = making.seconds + a_view * (count + RECONSTRUCTION * self.order.inputs)
        self.made.estimate = round(seconds, 1)
        self.announce(f"about {seconds / 60:.1f} min; {making.describe()}")


def describe_order(video: Path, order: Order, maker: Maker) -> dict:
    """What a run's pictures depend on, as plain data."""
    asked = {
        key: value if value is None or isinstance(value, int | float) else str(value)
        for key, value in asdict(order).items()
    }
    asked.pop("inputs")
    read = {"video": video, "masks": order.masks, "geometry": order.geometry}
    digests = {f"{key} (content)": digest_of(path) for key, path in read.items() if path is not None}
    made = {"preset": asdict(maker.preset), "sampling": asdict(maker.sampling), "inpainter": maker.made_by}
    return asked | digests | made | {"drop_edges": maker.drop_edges}


def digest_of(path: Path) -> str:
    """Of a file's content, or of a folder's files; ValueError if there is no such thing."""
    if not path.exists():
        raise ValueError(f"{path}: there is no such file or folder.")
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


Cell = tuple[int, int]
"""(time, view) of a grid's picture."""


def choose_inputs(moments: int, views: int, count: int) -> tuple[list[Cell], list[Cell]]:
    """The pictures (time, view) to reconstruct from, at most `count`, and a few others to be judged by.

    The video's own come first, at all moments. The made ones are spread: each moment gets as many as any other, and
    from sides that change from moment to moment, so that every side is seen all through the clip.
    """
    cells = [(time, 0) for time in spread(moments, count)]
    sides = [
        view for pair in range(1, 2 + (views - 1) // 2) for view in (pair, pair + (views - 1) // 2 + (views - 1) % 2)
    ]
    sides = list(dict.fromkeys(view for view in sides if view < views))
    left = min(count - len(cells), moments * len(sides))
    rounds, rest = divmod(left, moments)
    for index in range(rounds + (rest > 0)):
        times = range(moments) if index < rounds else spread(moments, rest)
        cells += [(time, sides[(place + index) % len(sides)]) for place, time in enumerate(times)]
    cells = list(dict.fromkeys(cells))
    taken = set(cells)
    others = [(time, view) for time in range(moments) for view in range(1, views) if (time, view) not in taken]
    return sorted(cells), [others[i] for i in spread(len(others), HELD_OUT)]


def _name(cell: Cell) -> str:
    return picture_path(Path("images"), cell[1], cell[0]).as_posix()


def save_with_alphas(
    folder: Path, grid: ViewGrid, alphas: Float[Tensor, "time 1 height width"], radius: float
) -> list[Path]:
    """Write a grid's pictures of an object on white again, with alphas; returns their paths.

    alphas: of the video. Of a made picture, what is white is not the object, nor is what lies beside the video's
    silhouette (carving.py).
    """
    empty = see_background(alphas, grid.cameras[:, 0], grid.cameras, radius)
    paths = []
    for view in range(grid.shape[1]):
        images = grid.images[:, view]
        if view:
            mask = cut_out_of_white(torch.where(empty[:, view], 1.0, images))
            colors, own = take_from_white(images, mask)
        else:
            own = alphas
            colors = ((images - (1 - own)) / own.clamp(min=1e-3)).clamp(0, 1)
        files = [picture_path(folder / "images", view, time) for time in range(grid.shape[0])]
        save_pictures(files, torch.cat([colors, own], dim=1))
        paths += files
    return paths
