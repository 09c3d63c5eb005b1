"""On CUDA the layout's mask goes to FlexAttention: it must give what the dense mask gives on the CPU."""

import pytest
import torch

from lrm4d.generation.inpainter import NanoInpainter
from lrm4d.generation.layout import Slot, TokenLayout
from lrm4d.generation.network import InpaintingNetwork, NanoConfig

pytestmark = pytest.mark.cuda


def test_flex_attention_on_cuda_is_the_dense_mask_on_the_cpu():
    torch.manual_seed(0)
    network = InpaintingNetwork(NanoConfig(width=64, heads=2, layers=2))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    slots = [Slot(0, time, "source") for time in range(3)]
    slots += [Slot(view, time, "target") for view in (1, 2) for time in range(3)]
    layout = TokenLayout(tuple(slots), rule="fused").with_warp_slots().resize(8, 8)
    latents, cameras = torch.randn(1, 15, 7, 64, 64), torch.randn(1, 15, 6, 64, 64)
    levels, text, gradients, made = torch.rand(1, 15), torch.randn(1, 2, 32), [], []
    for device in ("cpu", "cuda"):
        transformer = network.transformer.to(device)
        inputs = [x.to(device) for x in (latents, levels, cameras, text)]
        inputs[0].requires_grad_()
        made.append(transformer(layout, *inputs))
        gradients.append(torch.autograd.grad(made[-1].square().sum(), inputs[0])[0].cpu())
    torch.testing.assert_close(made[1].cpu(), made[0], atol=2e-3, rtol=2e-3)
    assert (gradients[1] - gradients[0]).norm() < 1e-2 * gradients[0].norm()


def test_the_inpainter_runs_on_cuda_as_on_the_cpu():
    from lrm4d.cameras import Cameras, intrinsics_from_fov, look_at

    torch.manual_seed(0)
    network = InpaintingNetwork(NanoConfig(width=64, heads=2, layers=1))
    layout = TokenLayout((Slot(0, 0, "source"), Slot(1, 0, "target")), rule="fused").with_warp_slots()
    images, visibility = torch.rand(1, 2, 3, 40, 48), torch.rand(1, 2, 1, 40, 48) > 0.3
    poses = look_at(torch.tensor([[[2.0, 0, 1], [0, 2, 1]]]), torch.zeros(3))
    cameras = Cameras(poses, intrinsics_from_fov(0.8, 48, 40).expand(1, 2, 3, 3), 48, 40)
    made = [
        NanoInpainter(network, torch.device(device))(layout, images, visibility, cameras, steps=2).cpu()
        for device in ("cpu", "cuda")
    ]
    torch.testing.assert_close(made[0], made[1], atol=5e-3, rtol=0)
