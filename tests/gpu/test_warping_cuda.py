"""On CUDA warping is the reference in PyTorch: it must show what the CPU's kernel shows."""

import pytest
import torch

from lrm4d.cameras import Cameras, look_at
from lrm4d.generation.geometry import Geometry, static_cameras
from lrm4d.generation.warping import reproject_twice, warp

pytestmark = pytest.mark.cuda


def test_warps_on_cuda_are_the_cpus():
    generator = torch.Generator().manual_seed(0)
    video = torch.rand(3, 3, 48, 64, generator=generator)
    depths = 4 + 0.1 * torch.rand(3, 1, 48, 64, generator=generator)
    depths[..., 12:30, 20:40] = 2.0
    source = static_cameras(3, 64, 48, 60.0)
    origins = torch.tensor([[0.3, 0.0, 0.1], [-0.4, 0.2, 0.0], [0.1, 0.5, -0.3]])
    targets = Cameras(look_at(origins, torch.tensor([0.0, 3.0, 0.0]).expand(3, 3)), source.intrinsics, 64, 48)
    geometry = Geometry(depths, source, depths > 0)
    here = warp(video, geometry, targets)
    there = warp(video.cuda(), geometry.to("cuda"), targets.to("cuda"))
    same = (here.visibility == there.visibility.cpu()).float().mean()
    assert same > 0.999
    assert (here.images - there.images.cpu()).abs().mean() < 1e-3
    still = reproject_twice(video.cuda(), geometry.to("cuda"), source.to("cuda"))
    assert torch.equal(still.images.cpu(), video) and still.visibility.all()
