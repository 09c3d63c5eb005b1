"""What a batch of views is rendered from, in one piece: described in one process, rendered in another on a GPU."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from math import prod

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from data_tools.render import WorldViews, render
from data_tools.scenes import Scenes
from lrm4d.cameras import Cameras

ALIGNMENT = 16
"""Bytes: where tensors may begin in a buffer."""

Place = tuple[str, torch.dtype, tuple[int, ...]]
"""Name, type and shape of a tensor in a buffer."""


@dataclass(frozen=True)
class WorldBatch:
    """Scenes with their cameras and times [scene, view], of which the first `input_views` are the context.

    buffer: all their tensors, one after the other, because each of some forty would cost a queue between processes a
    file descriptor and a GPU a transfer of its own. layout: where they are. width, height: of the pictures.
    samples: a pixel side.
    """

    buffer: UInt8[Tensor, "byte"]
    layout: tuple[Place, ...]
    width: int
    height: int
    input_views: int
    samples: int

    @classmethod
    def pack(
        cls, scenes: Scenes, cameras: Cameras, times: Float[Tensor, "scene view"], input_views: int, samples: int
    ) -> "WorldBatch":
        """A batch out of its tensors, all on one device."""
        tensors = {f.name: getattr(scenes, f.name) for f in fields(Scenes)}
        tensors |= {"camera_to_world": cameras.camera_to_world, "intrinsics": cameras.intrinsics, "times": times}
        layout = tuple((name, value.dtype, tuple(value.shape)) for name, value in tensors.items())
        pieces = (value.contiguous().flatten().view(torch.uint8) for value in tensors.values())
        padded = [torch.nn.functional.pad(piece, (0, -len(piece) % ALIGNMENT)) for piece in pieces]
        return cls(torch.cat(padded), layout, cameras.width, cameras.height, input_views, samples)

    def to(self, device: torch.device | str) -> "WorldBatch":
        """Moved to a device; from pinned memory without waiting for it."""
        return replace(self, buffer=self.buffer.to(device, non_blocking=self.buffer.device.type == "cpu"))

    def pin_memory(self) -> "WorldBatch":
        """Moved to where a GPU can fetch it by itself; a DataLoader calls this."""
        return replace(self, buffer=self.buffer.pin_memory())

    def scenes(self) -> Scenes:
        """The scenes."""
        tensors = dict(self._tensors())
        return Scenes(**{f.name: tensors[f.name] for f in fields(Scenes)})

    def cameras(self) -> Cameras:
        """The cameras, context and targets."""
        tensors = dict(self._tensors())
        return Cameras(tensors["camera_to_world"], tensors["intrinsics"], self.width, self.height)

    def times(self) -> Float[Tensor, "scene view"]:
        """The times, context and targets."""
        return dict(self._tensors())["times"]

    def render(self) -> tuple[WorldViews, WorldViews]:
        """Context and targets, where the batch is."""
        cameras = self.cameras()
        # The views live on, and would keep the whole buffer, or send it on to another process.
        own = replace(cameras, camera_to_world=cameras.camera_to_world.clone(), intrinsics=cameras.intrinsics.clone())
        seen = render(self.scenes(), own, self.times().clone(), self.samples)
        return seen[:, : self.input_views], seen[:, self.input_views :]

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        start = 0
        for name, dtype, shape in self.layout:
            end = start + prod(shape) * dtype.itemsize
            yield name, self.buffer[start:end].view(dtype).view(shape)
            start = end + -end % ALIGNMENT

    # Between processes it goes through the queue's pipe: tensors go through /dev/shm, which containers keep small.
    def __getstate__(self) -> dict:
        return {**vars(self), "buffer": self.buffer.cpu().numpy()}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state, buffer=torch.from_numpy(state["buffer"]))
