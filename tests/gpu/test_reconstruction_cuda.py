"""The network's own kernels on CUDA give what the CPU's give, and so does the whole network."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_reconstruction import TINY_WITH_ALL, build, pixels_with_rays, sphere_views

from lrm4d.reconstruction import attention, evidence

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("by", ["flash", "xformers"])
def test_attention_of_runs_is_attention_run_by_run(by):
    if by == "xformers" and not attention.xformers_works():
        pytest.skip("no xformers that was built for this PyTorch")
    lengths = [70, 0, 33, 128]
    inputs = [torch.randn(sum(lengths), 4, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
    inputs = [x.requires_grad_() for x in inputs]
    weights = torch.randn_like(inputs[0])

    def ask(attend) -> list[torch.Tensor]:
        mixed = attend(*inputs, lengths)
        return [mixed, *torch.autograd.grad((mixed * weights).sum(), inputs)]

    for got, right in zip(ask(getattr(attention, f"attend_by_{by}")), ask(attention.attend_by_sdpa), strict=True):
        assert (got - right).norm() < 1e-2 * right.norm()


def test_evidence_of_many_scenes_is_the_cpus():
    views = sphere_views(3, 12)
    views = replace(views, alphas=views.alphas * 0.7)
    rays = pixels_with_rays(views)
    velocities = torch.randn(rays[1].shape)
    right = evidence.gather_evidence(views, *rays, velocities)
    got = evidence.gather_evidence(views.to("cuda"), *(x.cuda() for x in (*rays, velocities))).cpu()
    # A place on a picture's very border may fall to either side.
    assert torch.isclose(got, right, rtol=0, atol=2e-5).all(dim=-1).float().mean() > 0.999
    assert right.std() > 0.1


def test_a_network_answers_as_on_the_cpu():
    model, views = build(TINY_WITH_ALL), sphere_views(2, 6)
    with torch.no_grad():
        right = model(views)
        got = model.cuda()(views.to("cuda"))
    assert got.distances.shape == right.distances.shape
    # Where two peaks are equally likely, rounding chooses.
    close = torch.isclose(got.distances.cpu(), right.distances, rtol=0, atol=1e-3)
    assert close.float().mean() > 0.99
    for name, values in right.gaussians.tensors().items():
        difference = (got.gaussians.tensors()[name].cpu() - values).abs()
        assert (difference < 1e-3).float().mean() > 0.99, name
