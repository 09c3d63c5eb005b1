"""Per-video tuning of an inpainter with low-rank layers, on the video and on what the inpainter made of it.

EasyCreator (arXiv 2506.04590): a first round trains on cameras below 30 degrees, each further one reaches 10 degrees
farther. A round begins with making the video's views from two cameras as far aside as it reaches, with the layers as
they are by then; all that was made so far is its material. Each step has two losses:

- **flow**: on pairs whose truth is the video itself. Either the video reprojected twice, to a camera within reach and
  back; or made pictures in the source's place, warped to the video's cameras. Such warps lose edges but show no side
  that the video does not have, so holes would be background more often than in truth: a side of what is seen is
  hidden too (as EasyCreator's composite masks hide regions).
- **cycle**: from a camera within reach the network answers to noise, or to its own first answer with some noise in
  it, as sampling asks it; its pictures, warped back, must be the video wherever the video shows the place, at every
  time (spatio-temporal consistency, a mean squared error).

All that is random follows from the seed and the number of the step, so a run that was killed goes on as it would have.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras, join_cameras
from lrm4d.checkpoint import read_json, read_safetensors, write_safetensors, write_text
from lrm4d.generation.completion import complete, complete_geometry
from lrm4d.generation.depth.provider import DepthProvider, Progress
from lrm4d.generation.flow import add_noise, draw_noise_levels
from lrm4d.generation.geometry import Geometry
from lrm4d.generation.grid import start_grid
from lrm4d.generation.inpainter import NanoInpainter, Sampling, pad_pictures
from lrm4d.generation.masks import fray, hide_side
from lrm4d.generation.network import InpaintingNetwork
from lrm4d.generation.objective import draw_example, example_losses
from lrm4d.generation.plans import Cell, Plan, Step
from lrm4d.generation.transformer import add_lora, save_lora
from lrm4d.generation.warping import Warp, draw_jitter, reproject_twice, warp
from lrm4d.video import to_bytes


@dataclass(frozen=True)
class Tuning:
    """How an inpainter is tuned. EasyCreator: rank 128, learning rate 1e-5, decay 0.1, 2000 steps, on a large model.

    first, further, last: degrees that the first round reaches, that each round adds, and that none exceeds. steps: of
    a round. frames: of the video in a step, consecutive. own: share of steps on own pictures. hidden: share of steps
    that hide a side too. cycle: weight of that loss. hole_weight: of pixels that are not seen. level_center,
    level_spread: logits of the noise levels, as in training. jitter_degrees, jitter_distance (of the depth), fray
    (pixels): how wrong the pairs' poses are, and by how much holes grow. sampling: steps with which own pictures are
    made. save_every: steps.
    ValueError for numbers that cannot be.
    """

    first: float = 30.0
    further: float = 10.0
    last: float = 60.0
    steps: int = 8
    frames: int = 3
    rank: int = 16
    learning_rate: float = 5e-4
    weight_decay: float = 0.1
    own: float = 0.5
    hidden: float = 1.0
    cycle: float = 0.1
    hole_weight: float = 3.0
    level_center: float = 1.5
    level_spread: float = 1.2
    jitter_degrees: float = 0.3
    jitter_distance: float = 0.005
    fray: int = 2
    sampling: int = 1
    seed: int = 0
    save_every: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.last <= 180 or not self.further > 0:
            raise ValueError(
                f"tuning: rounds from {self.first:g} to {self.last:g} degrees by {self.further:g}; expected "
                "0 < first <= last <= 180, further > 0."
            )
        for name in ("steps", "frames", "rank", "sampling", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"tuning: {name} is {getattr(self, name)}; expected at least 1.")
        if not (0 <= self.own <= 1 and 0 <= self.hidden <= 1):
            raise ValueError(f"tuning: own is {self.own:g}, hidden {self.hidden:g}; expected shares in [0, 1].")
        if self.cycle < 0 or not self.learning_rate > 0:
            raise ValueError(
                f"tuning: cycle is {self.cycle:g}, learning_rate {self.learning_rate:g}; expected from 0, and above 0."
            )

    @property
    def reaches(self) -> list[float]:
        """The degrees of each round."""
        count = 1 + math.ceil((self.last - self.first) / self.further - 1e-9)
        return [min(self.first + index * self.further, self.last) for index in range(count)]


@dataclass(frozen=True)
class _Shot:
    """Pictures in the levels of 8 bits, and their geometry: the video's, or what was made."""

    images: Float[Tensor, "time 3 height width"]
    geometry: Geometry

    def __getitem__(self, index: slice) -> "_Shot":
        return _Shot(self.images[index], self.geometry[index])


def tune(
    network: InpaintingNetwork,
    video: Float[Tensor, "time 3 height width"],
    geometry: Geometry,
    folder: str | Path,
    tuning: Tuning = Tuning(),
    depth: DepthProvider | None = None,
    progress: Progress | None = None,
) -> Path:
    """Tune a network (changed in place: it gets low-rank layers, all else stays) to a video; returns their file.

    video: in [0, 1]. geometry: of its size, placed so that the pivot is the world's origin (placing.place). folder:
    gets lora.safetensors (see load_lora), log.jsonl, the state to go on from and the pictures that were made. depth:
    tells how far what was made up is away; without, only what the video shows of it is warped. progress: told (stage
    "tune", steps done, of all; "complete" while own pictures are made). ValueError for a folder of another run.
    """
    folder = Path(folder)
    _claim(folder, network, video, geometry, tuning)
    work = _Work(network, _Shot(to_bytes(video).float() / 255, geometry), tuning, depth, folder)
    total = len(tuning.reaches) * tuning.steps
    while work.step < total:
        if tuning.own and work.step % tuning.steps == 0:
            work.make_own(work.step // tuning.steps, progress)
        work.take_step()
        if work.step % tuning.save_every == 0 or work.step % tuning.steps == 0:
            work.save()
        if progress is not None:
            progress("tune", work.step, total)
    save_lora(network.transformer.wan, folder / "lora.safetensors")
    return folder / "lora.safetensors"


class _Work:
    """A run as far as it is."""

    def __init__(
        self, network: InpaintingNetwork, video: _Shot, tuning: Tuning, depth: DepthProvider | None, folder: Path
    ):
        self.network, self.video, self.tuning, self.depth, self.folder = network.train(), video, tuning, depth, folder
        network.requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(tuning.seed)
            add_lora(network.transformer.wan, tuning.rank)
        self.layers = {name: value for name, value in network.named_parameters() if value.requires_grad}
        self.device = next(iter(self.layers.values())).device
        self.optimizer = torch.optim.AdamW(
            self.layers.values(), lr=tuning.learning_rate, weight_decay=tuning.weight_decay
        )
        self.step, self.lines = 0, []
        self.own: list[_Shot] = []
        self._resume()

    def take_step(self) -> None:
        """One update."""
        tuning = self.tuning
        generator = torch.Generator().manual_seed(tuning.seed * 1_000_003 + self.step)
        reach = tuning.reaches[self.step // tuning.steps]
        count = min(tuning.frames, len(self.video.images))
        start = int(torch.randint(len(self.video.images) - count + 1, (), generator=generator))
        window = slice(start, start + count)
        use_own = float(torch.rand((), generator=generator)) < tuning.own
        flow = self._own_flow(window, generator) if use_own else self._twice_flow(window, reach, generator)
        cycle = self._cycle(window, reach, generator) if tuning.cycle else torch.zeros_like(flow)
        loss = flow + tuning.cycle * cycle
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1
        values = {"loss": loss, "flow": flow, "cycle": cycle}
        line = {"step": self.step, "reach": reach, **{name: float(value.detach()) for name, value in values.items()}}
        self.lines.append(json.dumps(line))
        write_text(self.folder / "log.jsonl", "".join(line + "\n" for line in self.lines))

    def _twice_flow(self, window: slice, reach: float, generator: torch.Generator) -> Tensor:
        """On the video, reprojected twice; it has no source slots, which would give the truth away."""
        tuning, shot = self.tuning, self.video[window]
        cameras = turn_cameras(shot.geometry.cameras, *draw_turn(reach, generator))
        distance = tuning.jitter_distance * float(shot.geometry.median_depths().nanmean().nan_to_num(1.0))
        jitter = draw_jitter(1, tuning.jitter_degrees, distance, generator).expand(len(shot.images), 4, 4)
        warped = reproject_twice(shot.images, shot.geometry, cameras, jitter)
        return self._flow(None, warped, shot, generator)

    def _own_flow(self, window: slice, generator: torch.Generator) -> Tensor:
        """On pictures that were made, warped to the video's cameras."""
        made = self.own[int(torch.randint(len(self.own), (), generator=generator))][window]
        shot = self.video[window]
        return self._flow(made, warp(made.images, made.geometry, shot.geometry.cameras), shot, generator)

    def _flow(self, source: _Shot | None, warped: Warp, truth: _Shot, generator: torch.Generator) -> Tensor:
        seen = fray(warped.visibility, self.tuning.fray, generator)
        if float(torch.rand((), generator=generator)) < self.tuning.hidden:
            seen = hide_side(seen, generator)
        given = self._given(source, replace(warped, visibility=seen), truth.geometry.cameras)
        levels = (self.tuning.level_center, self.tuning.level_spread)
        example = draw_example(self.network, *given, self._batch(truth.images), generator, 0.0, *levels)
        return example_losses(self.network(*example.inputs), example, self.tuning.hole_weight)["loss"]

    def _cycle(self, window: slice, reach: float, generator: torch.Generator) -> Tensor:
        """How far the network's answer, warped back, is from the video: mean squared error in [-1, 1].

        The answer to noise alone counts in half of the steps; in the others, one to what that answer becomes at a
        noise level of training.
        """
        tuning, shot = self.tuning, self.video[window]
        cameras = turn_cameras(shot.geometry.cameras, *draw_turn(reach, generator))
        there = warp(shot.images, shot.geometry, cameras)
        layout, images, seen, sized = self._given(shot, there, cameras)
        conditions = self.network.condition(layout, images, seen, sized, generator)
        noise = torch.randn(self._batch(shot.images).shape, generator=generator).to(self.device)
        level = torch.ones(1, device=self.device)
        noisy, nothing = noise, torch.zeros(1, dtype=torch.bool, device=self.device)
        if float(torch.rand((), generator=generator)) < 0.5:
            with torch.no_grad():
                first = self.network(layout, noise, level, conditions, nothing)
            level = draw_noise_levels(1, generator, tuning.level_center, tuning.level_spread).to(level)
            noisy = add_noise(first, noise, level)
        made = self.network(layout, noisy, level, conditions, nothing)[0].cpu()
        height, width = shot.images.shape[-2:]
        known = Geometry(there.depths, cameras, there.visibility)
        back = warp(made[..., :height, :width], known, shot.geometry.cameras)
        errors = (back.images - (shot.images * 2 - 1)).square() * back.visibility
        return errors.sum() / (3 * back.visibility.sum()).clamp(min=1)

    def _given(self, source: _Shot | None, warped: Warp, cameras: Cameras) -> tuple:
        """Layout, images, visibility and cameras [1, picture] as an Inpainter takes them, padded."""
        times = range(len(warped.images))
        context = tuple(Cell(0, time) for time in times) if source else ()
        layout = Step(tuple(Cell(1, time) for time in times), context).layout()
        images, seen = warped.images.clamp(0, 1), warped.visibility
        if source:
            images = torch.cat([source.images, images])
            seen = torch.cat([torch.ones_like(seen), seen])
            cameras = join_cameras([source.geometry.cameras, cameras])
        images = self._batch(images)
        seen = ~pad_pictures(~seen, self.network.config.patch, fill=True)[None].to(self.device)
        sized = replace(cameras, width=images.shape[-1], height=images.shape[-2])
        return layout, images, seen, sized.reshape(1, -1).to(self.device)

    def _batch(self, images: Tensor) -> Tensor:
        return pad_pictures(images, self.network.config.patch)[None].to(self.device)

    def make_own(self, index: int, progress: Progress | None = None) -> None:
        """The pictures of two cameras, to the right and to the left, as far off as a round reaches."""
        images, geometry = self.video.images, self.video.geometry
        turned = [turn_cameras(geometry.cameras, side * self.tuning.reaches[index], 0.0) for side in (1, -1)]
        cameras = join_cameras([cameras.reshape(-1, 1) for cameras in turned], dim=1)
        grid = start_grid(images, geometry, cameras, torch.linspace(0, 1, len(images)))
        inpainter = NanoInpainter(self.network, self.device)
        sampling = Sampling(steps=self.tuning.sampling, seed=self.tuning.seed + index)
        done = complete(grid, geometry, Plan(window=self.tuning.frames), inpainter, sampling, progress=progress)
        self.network.train()
        for side in (0, 1):
            made = done.images[:, 1 + side]
            warped = warp(images, geometry, cameras[:, side])
            self.own.append(_Shot(made, complete_geometry(made, warped, cameras[:, side], self.depth)))
        self._save_own(index)

    def _save_own(self, index: int) -> None:
        tensors: dict[str, Tensor] = {}
        for side, shot in enumerate(self.own[2 * index :]):
            cameras = shot.geometry.cameras
            tensors |= {f"{side}.images": to_bytes(shot.images), f"{side}.depths": shot.geometry.depths}
            tensors |= {f"{side}.valid": shot.geometry.valid, f"{side}.poses": cameras.camera_to_world}
        write_safetensors(self._own_path(index), tensors, {})

    def _load_own(self, index: int) -> None:
        tensors, _ = read_safetensors(self._own_path(index))
        for side in (0, 1):
            images, depths, valid, poses = (tensors[f"{side}.{n}"] for n in ("images", "depths", "valid", "poses"))
            cameras = replace(self.video.geometry.cameras, camera_to_world=poses)
            self.own.append(_Shot(images.float() / 255, Geometry(depths, cameras, valid)))

    def _own_path(self, index: int) -> Path:
        return self.folder / "made" / f"round_{index}.safetensors"

    def save(self) -> None:
        """Write the state, in one file, so that it is whole or the one before it."""
        states = self.optimizer.state_dict()["state"]
        moments = {f"optimizer.{i}.{key}": value for i, state in states.items() for key, value in state.items()}
        tensors = {name: value.detach() for name, value in self.layers.items()}
        write_safetensors(self.folder / "state.safetensors", {**tensors, **moments}, {"step": str(self.step)})

    def _resume(self) -> None:
        path = self.folder / "state.safetensors"
        if not path.exists():
            return
        tensors, metadata = read_safetensors(path)
        self.step = int(metadata["step"])
        with torch.no_grad():
            for name, value in self.layers.items():
                value.copy_(tensors[name])
        state = {
            index: {key: tensors[f"optimizer.{index}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            for index in range(len(self.layers))
        }
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.lines = (self.folder / "log.jsonl").read_text().splitlines()[: self.step]
        rounds = -(-self.step // self.tuning.steps) if self.tuning.own else 0
        for index in range(rounds):
            self._load_own(index)


def draw_turn(reach: float, generator: torch.Generator) -> tuple[float, float]:
    """Degrees to the right and up, even over the right and left up to `reach`, a third of that up and down."""
    right, up = (2 * torch.rand(2, generator=generator) - 1).tolist()
    return right * reach, up * reach / 3


def turn_cameras(cameras: Cameras, right: float, up: float = 0.0) -> Cameras:
    """Cameras turned by degrees around the world's origin: up around the x axis, then right around the z axis, as seen
    by one that stands before the origin (at -y)."""
    a, b = math.radians(right), -math.radians(up)
    around_z = [[math.cos(a), -math.sin(a), 0, 0], [math.sin(a), math.cos(a), 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    around_x = [[1, 0, 0, 0], [0, math.cos(b), -math.sin(b), 0], [0, math.sin(b), math.cos(b), 0], [0, 0, 0, 1]]
    turned = cameras.camera_to_world.new_tensor(around_z) @ cameras.camera_to_world.new_tensor(around_x)
    return replace(cameras, camera_to_world=turned @ cameras.camera_to_world)


def _tensors(network: InpaintingNetwork, video: Tensor, geometry: Geometry) -> Iterator[Tensor]:
    yield from (video, geometry.depths, geometry.valid)
    yield from (geometry.cameras.camera_to_world, geometry.cameras.intrinsics)
    yield from network.state_dict().values()


def _claim(folder: Path, network: InpaintingNetwork, video: Tensor, geometry: Geometry, tuning: Tuning) -> None:
    """Write down what the folder's run is, or find that it is this one; where it saves may change nothing."""
    digest = hashlib.sha256()
    for tensor in _tensors(network, video, geometry):
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    settings = {name: value for name, value in asdict(tuning).items() if name != "save_every"}
    run = {**settings, "inputs": digest.hexdigest()}
    file = folder / "tune.json"
    if not file.exists():
        write_text(file, json.dumps(run, indent=1) + "\n")
        return
    other = read_json(file)
    differing = [name for name in run if other.get(name) != run[name]]
    if differing:
        raise ValueError(f"{file}: a run that differs in {', '.join(differing)}; give another folder, or delete it.")
