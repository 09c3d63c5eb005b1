"""What a run of train.inpainter is."""

from dataclasses import dataclass, field
from typing import Any

from train.config import RunConfig

LAYOUTS = ("view", "window", "packed", "joint")
BACKGROUNDS = ("none", "white", "pattern")
MASKS = ("visibility", "editing", "union", "frayed")


@dataclass
class InpainterConfig(RunConfig):
    """A run of train.inpainter. Dictionaries give how often each kind is drawn, by weight; kinds that are not named
    keep theirs, and 0 is never.

    model: changes to the network's NanoConfig. A batch has one layout: "view" (one view), "window" (one, whose first
    frames, up to `overlap`, are finished already), "packed" (beside one, up to `packed` finished pictures of other
    views) or "joint" (up to `views` views; a share `fused` with fused attention and warps in slots of their own).
    frames: of a video, fewer where a sequence would have more than most_slots. A batch has views_per_step // slots
    samples.

    angles: degrees between the source and the targets. moving: share of moving source cameras. closer: by what share
    cameras' distances differ. hops: share of batches whose warp comes from a finished view between, as along a spline.
    twice: share of batches that are twice reprojected, with poses wrong by jitter_degrees and jitter_distance (of the
    depth), standard deviations. depth_noise: half of the depths are wrong by up to this share, smoothly in space and
    time. edges: share of samples whose unreliable edges are dropped. masks: "visibility" (the warp's holes),
    "editing" (a region instead; beside other views it counts as union), "union" (both), "frayed" (grown by up to
    `fray` pixels, raggedly).

    hole_weight: of pixels that are not seen in the loss, against 1. drop: see draw_example. sample_steps: of the
    sampler, for the pictures in samples/. fixed_batches: how many batches there are in all, 0 for no end.
    """

    model: dict[str, Any] = field(default_factory=dict)
    layouts: dict[str, float] = field(
        default_factory=lambda: {"view": 3.0, "window": 2.0, "packed": 2.0, "joint": 3.0}
    )
    frames: tuple[int, int] = (4, 9)
    overlap: int = 3
    packed: int = 4
    views: int = 3
    fused: float = 0.5
    most_slots: int = 24
    angles: tuple[float, float] = (10.0, 90.0)
    moving: float = 0.3
    closer: float = 0.1
    hops: float = 0.25
    twice: float = 0.3
    jitter_degrees: float = 0.3
    jitter_distance: float = 0.005
    depth_noise: float = 0.03
    edges: float = 0.2
    backgrounds: dict[str, float] = field(default_factory=lambda: {"none": 3.0, "white": 2.0, "pattern": 3.0})
    masks: dict[str, float] = field(
        default_factory=lambda: {"visibility": 3.0, "editing": 1.0, "union": 1.0, "frayed": 3.0}
    )
    fray: int = 3
    hole_weight: float = 2.0
    drop: float = 0.1
    level_center: float = 0.8
    level_spread: float = 0.8
    sample_steps: int = 8
    fixed_batches: int = 0
