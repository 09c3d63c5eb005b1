"""A fit on CUDA does what it does on the CPU."""

from dataclasses import replace

import pytest
import torch
from moving_scene import SMALL_REFINEMENT, make_views, quality, spoiled

from lrm4d.rasterizer import cuda
from lrm4d.refinement.carrying import carry
from lrm4d.refinement.config import Density
from lrm4d.refinement.job import Refinement

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available() or not cuda.is_available(), reason="needs a GPU and gsplat"),
]


def test_carrying_on_cuda_is_the_cpus():
    generator = torch.Generator().manual_seed(0)
    transforms, frames, weights = (torch.randn(*s, generator=generator) for s in ((3, 6, 3, 4), (50, 3, 4), (50, 4)))
    owners, weights = torch.randn(50, 6, generator=generator).topk(4).indices, weights.softmax(dim=1)
    inputs = (transforms, frames, owners, weights)
    for here, there in zip(carry(*inputs), carry(*(x.cuda() for x in inputs)), strict=True):
        torch.testing.assert_close(there.cpu(), here, rtol=1e-4, atol=1e-5)


def test_a_refinement_on_cuda_gains_what_it_gains_on_the_cpu():
    views, start = make_views(8), spoiled()
    config = replace(SMALL_REFINEMENT, origins=(0.5, 0.25), steps=40, density=Density(every=10, budget=70))
    here = quality(Refinement(config, None)(start, views), views)
    there = quality(Refinement(config, None)(start.to("cuda"), views).to("cpu"), views)
    assert here > quality(start, views) + 0.5
    assert there == pytest.approx(here, abs=1.0)
