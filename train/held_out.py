"""Scenes of the world that no training has, batches kept in files, and the scores of a network."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_tools.render import WorldViews
from data_tools.shard_views import join_geometry, split_geometry
from data_tools.world import sample_batch
from eval.scores import Scores, mean_scores, score_pictures
from lrm4d.cameras import Cameras
from lrm4d.checkpoint import read_safetensors, write_safetensors
from lrm4d.reconstruction import ReconstructionModel
from lrm4d.views import Views
from train.data import Batch

FIRST_SEED = 2**31
"""Training draws its scenes' seeds below this."""
TOGETHER = 4
"""Scenes that a network reconstructs at once."""


@dataclass
class HeldOut:
    """World scenes to score on: `scenes` of each set-up of cameras, the same for every set-up."""

    setups: list[str] = field(
        default_factory=lambda: ["random", "two_rotating", "alternating_canonical", "frame_interpolation"]
    )
    scenes: int = 24
    input_views: int = 12
    target_views: int = 8
    size: int = 32

    def batch(self, setup: str) -> Batch:
        """The scenes of a set-up: views [scene, view]."""
        seeds = list(range(FIRST_SEED, FIRST_SEED + self.scenes))
        return sample_batch(seeds, self.input_views, self.target_views, self.size, setup=setup)

    def load(self, folder: Path) -> dict[str, Batch]:
        """The scenes of every set-up, from the folder where they have been kept before."""
        described = {"held_out": asdict(self)}
        return {
            setup: keep_batch(folder, {**described, "setup": setup}, lambda setup=setup: self.batch(setup))
            for setup in self.setups
        }


@torch.no_grad()
def score_model(model: ReconstructionModel, held_out: dict[str, Batch], device: torch.device) -> dict[str, Scores]:
    """Mean scores of each set-up, and "mean" of all."""
    scores = {}
    for setup, (context, targets) in held_out.items():
        pairs = zip(*(_split(side, device) for side in (context, targets)), strict=True)
        scores[setup] = mean_scores(one for given, truth in pairs for one in _score_scenes(model, given, truth))
    return {**scores, "mean": mean_scores(scores.values())}


def _split(side: WorldViews, device: torch.device) -> list[Views]:
    starts = range(0, len(side.views), TOGETHER)
    return [side.views[start : start + TOGETHER].to(device) for start in starts]


def _score_scenes(model: ReconstructionModel, given: Views, truth: Views) -> list[Scores]:
    white = truth.images.new_ones(3)
    pictures = model(given).gaussians.render(truth.cameras, truth.times, white).image
    return [score_pictures(pictures[i], truth[i]) for i in range(len(pictures))]


def batch_path(folder: Path, description: dict[str, Any]) -> Path:
    """Where a batch is kept that is described by plain data."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
    return folder / f"{digest[:24]}.safetensors"


def keep_batch(folder: Path, description: dict[str, Any], make: Callable[[], Batch]) -> Batch:
    """The batch of a description: out of the folder or, the first time, made and written there."""
    path = batch_path(folder, description)
    if path.exists():
        return read_batch(path)
    batch = make()
    tensors = {f"{side}.{k}": v for side, seen in zip("ct", batch, strict=True) for k, v in _to_tensors(seen).items()}
    write_safetensors(path, tensors, {"description": json.dumps(description)})
    return batch


def read_batch(path: Path) -> Batch:
    """A batch that keep_batch wrote."""
    tensors, _ = read_safetensors(path)
    context, targets = (
        _from_tensors({k.removeprefix(side): v for k, v in tensors.items() if k.startswith(side)})
        for side in ("c.", "t.")
    )
    return context, targets


def _to_tensors(seen: WorldViews) -> dict[str, Tensor]:
    views, geometry = split_geometry(seen)
    cameras = {"poses": views.cameras.camera_to_world, "intrinsics": views.cameras.intrinsics}
    tensors = {"images": views.images, "alphas": views.alphas, "times": views.times, **cameras, **geometry}
    # safetensors takes no tensors that share memory, and context and targets are rendered together.
    return {name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}


def _from_tensors(tensors: dict[str, Tensor]) -> WorldViews:
    images, alphas, times, poses, intrinsics = (
        tensors.pop(name) for name in ("images", "alphas", "times", "poses", "intrinsics")
    )
    cameras = Cameras(poses, intrinsics, images.shape[-1], images.shape[-2])
    return join_geometry(Views(images, alphas, cameras, times), tensors)
