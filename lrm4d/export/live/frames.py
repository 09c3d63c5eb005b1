"""Frames for one watcher: the newest request is drawn, coarsely while requests keep coming and fully at rest."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.export.modes import ModeRenderer
from lrm4d.video import to_bytes

REST_SECONDS = 0.2
"""After so long without a new request the last one is drawn fully."""
TARGET_SECONDS = 0.06
"""What a frame should take while requests keep coming."""
COARSEST = 0.2
"""The smallest part of the full picture's side that is drawn."""


@dataclass(frozen=True)
class View:
    """What a watcher looks at. fov: vertical, radians. width, height: pixels. time in [0, 1]. background: RGB."""

    camera_to_world: Float[Tensor, "4 4"]
    fov: float
    width: int
    height: int
    time: float = 0.0
    mode: str = "colour"
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def cameras(self, scale: float = 1.0) -> Cameras:
        """The camera [1] of this view with its picture's sides scaled."""
        width, height = (max(1, round(scale * side)) for side in (self.width, self.height))
        return camera_of_fov(self.camera_to_world, self.fov, width, height)


@dataclass(frozen=True)
class Frame:
    """A drawn view: picture [height, width, 3], depth [height, width] (camera z, 0 where nothing is), its cost."""

    view: View
    image: UInt8[Tensor, "height width 3"]
    depth: Float[Tensor, "height width"]
    full: bool
    seconds: float
    shown: int


def camera_of_fov(camera_to_world: Float[Tensor, "4 4"], fov: float, width: int, height: int) -> Cameras:
    """A camera [1] with square pixels, centred, of a vertical field of view in radians."""
    focal = 0.5 * height / math.tan(fov / 2)
    intrinsics = torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    return Cameras(camera_to_world[None].float(), intrinsics[None], width, height)


def draw(renderer: ModeRenderer, view: View, scale: float = 1.0) -> Frame:
    """A view as a frame, its sides scaled."""
    start = time.perf_counter()
    times = torch.tensor([view.time])
    with torch.no_grad():
        drawn = renderer.render(view.cameras(scale), times, view.mode, torch.tensor(view.background))
        shown = renderer.count_shown(view.time)
    depth = torch.where(drawn.alpha > 0.5, drawn.depth, 0)[0, 0].cpu()
    image = to_bytes(drawn.image)[0].permute(1, 2, 0).contiguous().cpu()
    return Frame(view, image, depth, scale == 1, time.perf_counter() - start, shown)


class FrameWorker(threading.Thread):
    """A thread that draws the newest request and forgets those that it had no time for.

    deliver: called with every frame, in this thread. dropped: how many requests were never drawn.
    """

    def __init__(self, renderer: ModeRenderer, deliver: Callable[[Frame], None]):
        super().__init__(daemon=True, name="frames")
        self.renderer, self.deliver = renderer, deliver
        self.dropped = 0
        self.scale = 0.5
        self._changed = threading.Condition()
        self._wanted: View | None = None
        self._unfinished: View | None = None
        self._closed = False

    def request(self, view: View) -> None:
        """Ask for a view; returns at once. One that still waits gives way to it."""
        with self._changed:
            self.dropped += self._wanted is not None
            self._wanted = view
            self._changed.notify()

    def close(self) -> None:
        """End after the frame that is being drawn."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def run(self) -> None:
        """Draw until closed."""
        while (job := self._next()) is not None:
            view, scale = job
            frame = draw(self.renderer, view, scale)
            if not frame.full:
                self.scale = adapt(self.scale, frame.seconds)
            if not self._closed:
                self.deliver(frame)

    def _next(self) -> tuple[View, float] | None:
        """The next view with the scale to draw it at; None once closed."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self._wanted, REST_SECONDS if self._unfinished is not None else None
            )
            if self._closed:
                return None
            if self._wanted is not None:
                self._unfinished, self._wanted = self._wanted, None
                return self._unfinished, self.scale
            view, self._unfinished = self._unfinished, None
            return view, 1.0


def adapt(scale: float, seconds: float) -> float:
    """The next coarse frame's scale, after one that took so long; pixels cost about what they cost before."""
    return min(0.999, max(COARSEST, scale * min(1.25, max(0.5, (TARGET_SECONDS / seconds) ** 0.5))))
