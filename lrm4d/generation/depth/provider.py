"""What every source of depth is."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from lrm4d.generation.geometry import Geometry

Progress = Callable[[str, int, int], None]
"""Told (stage, done, total) while something takes long."""


@runtime_checkable
class DepthProvider(Protocol):
    """Anything that tells the geometry of a video."""

    def __call__(self, frames: Float[Tensor, "time 3 height width"], progress: Progress | None = None) -> Geometry:
        """The geometry of frames (RGB in [0, 1]), at their size.

        One that knows no poses gives a camera at rest (geometry.static_cameras) with a field of view that it knows or
        was told.
        """
        ...
