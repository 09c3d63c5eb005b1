"""A small moving scene on disk for tests: coloured Gaussians that drift, seen from around."""

from dataclasses import replace
from pathlib import Path

import torch

from lrm4d.gaussians4d import Gaussians4D
from lrm4d.metrics import psnr
from lrm4d.reconstruction import ModelConfig, ReconstructionModel
from lrm4d.reconstruction.pretrained import save_pretrained
from lrm4d.refinement.config import Density, RefinementConfig
from lrm4d.scenes import save_scene
from lrm4d.trajectories import orbit
from lrm4d.views import Views

TINY = ModelConfig(width=64, layers=2, head_width=32, near=None, far=None, residual_start=True, low_pass=0.1)

SMALL_REFINEMENT = RefinementConfig(
    corrector="",
    origins=(0.5,),
    steps=20,
    nodes=6,
    coarse_nodes=2,
    knots=6,
    count=60,
    density=Density(every=5, budget=70),
)
"""One fit of make_gaussians, in a second."""


def make_gaussians(count: int = 60, seed: int = 0) -> Gaussians4D:
    """Opaque blobs within half a unit of the origin that exist at all times and move a little."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    return Gaussians4D(
        means=draw(count, 3) - 0.5,
        time_means=torch.zeros(count),
        scales=0.05 + 0.1 * draw(count, 3),
        time_scales=torch.full((count,), 3.0),
        left_quaternions=torch.tensor([1.0, 0, 0, 0]) + 0.05 * draw(count, 4),
        right_quaternions=torch.tensor([1.0, 0, 0, 0]) + 0.05 * draw(count, 4),
        opacities=0.5 + 0.5 * draw(count),
        colors=draw(count, 3),
    )


def make_views(count: int = 6, width: int = 32, height: int = 24) -> Views:
    """Pictures of make_gaussians from an orbit while time runs."""
    cameras = orbit().cameras(count, width, height)
    times = torch.linspace(0, 1, count)
    rendering = make_gaussians().render(cameras, times, torch.zeros(3))
    images = torch.where(rendering.alpha > 0, rendering.image / rendering.alpha.clamp(min=1e-6), 0.0)
    return Views(images.clamp(0, 1), rendering.alpha.clamp(0, 1), cameras, times)


def spoiled(scale: float = 0.3) -> Gaussians4D:
    """make_gaussians with wrong colours."""
    scene = make_gaussians()
    generator = torch.Generator().manual_seed(5)
    return replace(scene, colors=(scene.colors + scale * torch.randn(60, 3, generator=generator)).clamp(0, 1))


def quality(scene: Gaussians4D, views: Views) -> float:
    """Mean PSNR on white, dB."""
    white = torch.ones(3)
    return psnr(scene.render(views.cameras, views.times, white).image, views.composite(white)).mean().item()


def write_moving_scene(folder: Path, count: int = 6) -> list[str]:
    """make_views as a scene folder; returns the file_paths, in sub-folders, the odd ones being another camera's."""
    paths = [f"images/{'ab'[i % 2]}/{i:03}.png" for i in range(count)]
    sides = {"halves": (tuple(paths[0::2]), tuple(paths[1::2]))}
    save_scene(folder, make_views(count), paths, sides)
    return paths


def write_tiny_network(folder: Path) -> Path:
    """An untrained network with residual starts: its scenes show the inputs' colours."""
    torch.manual_seed(0)
    save_pretrained(ReconstructionModel(TINY), folder)
    return folder
