"""Scenes for the tests of the exports, pictures of them, and files that are broken in every way."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from rasterizer_scenes import random_scene

from lrm4d.cameras import Cameras
from lrm4d.gaussians3d import Gaussians3D
from lrm4d.gaussians4d import MovingGaussians
from lrm4d.rasterizer import rasterize

LOW_PASS = 0.1


def make_moment(count: int = 60, seed: int = 0) -> tuple[Gaussians3D, Cameras]:
    """Gaussians of batch shape [], one opaque, one flat, one a point, one over-bright; and two cameras."""
    gaussians, cameras = random_scene(seed, count, views=2, opaque=True)
    gaussians.opacities[:4] = torch.tensor([1.0, 0.995, 1 / 255, 0.5])
    gaussians.covariances[:2] = torch.tensor([[0.01, 0, 0, 0.01, 0, 0], [0, 0, 0, 0, 0, 0.0]])
    gaussians.colors[1] = torch.tensor([1.3, 0.0, 0.7])
    return gaussians, cameras


def make_moving(count: int = 60, seed: int = 0) -> tuple[MovingGaussians, Cameras]:
    """Gaussians that move and fade within and around the clip, and two cameras."""
    gaussians, cameras = random_scene(seed, count, views=2, opaque=True)
    generator = torch.Generator().manual_seed(seed)
    moving = MovingGaussians(
        means=gaussians.means,
        velocities=0.3 * torch.randn(count, 3, generator=generator),
        covariances=gaussians.covariances,
        time_means=2.2 * torch.rand(count, generator=generator) - 1.1,
        time_deviations=0.2 + 2 * torch.rand(count, generator=generator),
        opacities=gaussians.opacities,
        colors=gaussians.colors,
    )
    return moving, cameras


def render_moment(gaussians: Gaussians3D, cameras: Cameras) -> torch.Tensor:
    """Pictures [view, 3, h, w] on gray."""
    values = (value.float() for value in vars(gaussians).values())
    return rasterize(Gaussians3D(*values), cameras, torch.full((3,), 0.5), LOW_PASS, backend="reference").image


def assert_refused(path: Path, content: bytes, read: Callable, match: str | None = None) -> None:
    """Reading the content fails with a ValueError that names the file."""
    path.write_bytes(content)
    with pytest.raises(ValueError, match=match) as caught:
        read(path)
    assert str(path) in str(caught.value)


def beginnings(content: bytes) -> Iterator[bytes]:
    """The content cut off at every byte."""
    return (content[:length] for length in range(len(content)))


def damaged(content: bytes, count: int = 200) -> Iterator[bytes]:
    """The content with a few bytes changed at random."""
    generator = np.random.default_rng(0)
    for _ in range(count):
        changed = np.frombuffer(content, np.uint8).copy()
        places = generator.integers(0, len(changed), 3)
        changed[places] = generator.integers(0, 256, 3)
        yield changed.tobytes()
