"""Flow matching distillation: its gradient in closed form, perfect teachers, the nano one, and the real rasterizer."""

from dataclasses import dataclass, field, replace

import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from lrm4d.cameras import Cameras, intrinsics_from_fov, look_at
from lrm4d.generation.inpainter import NanoInpainter
from lrm4d.generation.layout import Slot, TokenLayout
from lrm4d.generation.network import InpaintingNetwork, NanoConfig
from lrm4d.refinement.distillation import Distillation, DistillationConfig, NanoTeacher, draw_level
from tests.moving_scene import make_gaussians

pytestmark = pytest.mark.usefixtures("one_thread")

LAYOUT = TokenLayout((Slot(0, 0, "source"), Slot(1, 0, "target"), Slot(2, 0, "target")))


@dataclass
class PerfectTeacher:
    """Knows the truth, in pixels: v = (z_t - z0) / t leads from any noisy picture straight to it."""

    truth: torch.Tensor
    asked: list[tuple[float, float]] = field(default_factory=list)

    def encode(self, images):
        return images * 2 - 1

    def decode(self, states):
        return (states / 2 + 0.5).clamp(0, 1)

    def velocity(self, noisy, level, guidance):
        assert not torch.is_grad_enabled()
        self.asked.append((level, guidance))
        return (noisy - self.encode(self.truth)) / level


@dataclass
class WrongTeacher(PerfectTeacher):
    """Answers with a velocity that has nothing to do with the truth, the same whatever it is asked."""

    def velocity(self, noisy, level, guidance):
        return torch.sin(torch.arange(noisy.numel(), dtype=noisy.dtype)).reshape(noisy.shape)


class PoolingTeacher(PerfectTeacher):
    """Of latents half as large, as an autoencoder would make them."""

    def encode(self, images):
        return avg_pool2d(images.flatten(0, 1), 2).unflatten(0, images.shape[:2]) * 2 - 1

    def decode(self, states):
        grown = interpolate(states.flatten(0, 1), scale_factor=2, mode="nearest")
        return (grown.unflatten(0, states.shape[:2]) / 2 + 0.5).clamp(0, 1)


def draw(*shape, seed: int = 0, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("power", [0.0, -2.0, 1.0])
def test_the_gradient_is_twice_w_times_the_residual(power):
    renders = draw(1, 2, 3, 4, 6, dtype=torch.float64).requires_grad_()
    config = DistillationConfig(weight=3.0, levels=(0.2, 0.8), level_power=power)
    Distillation(config, WrongTeacher(renders)).loss(renders, seeded(7)).backward()
    # The same by hand, with the same draws: a level, then the noise.
    generator = seeded(7)
    level = draw_level((0.2, 0.8), generator)
    noise = torch.randn(renders.shape, generator=generator, dtype=torch.float64)
    states = 2 * renders.detach() - 1
    noisy = (1 - level) * states + level * noise
    clean = noisy - level * WrongTeacher(renders).velocity(noisy, level, 1.0)
    expected = 3.0 * level**power * 2 * (states - clean) / states.numel() * 2  # the last: d z / d render
    torch.testing.assert_close(renders.grad, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("space", ["latent", "picture"])
def test_pixels_descend_to_a_perfect_teachers_truth(space):
    truth = draw(1, 2, 3, 8, 8, seed=1)
    distillation = Distillation(DistillationConfig(space=space), PerfectTeacher(truth))
    pixels, generator = draw(1, 2, 3, 8, 8, seed=2).requires_grad_(), seeded()
    for _ in range(60):
        (gradient,) = torch.autograd.grad(distillation.loss(pixels, generator), pixels)
        with torch.no_grad():
            pixels -= (0.03 if space == "latent" else 0.12) * pixels.numel() * gradient
    torch.testing.assert_close(pixels.detach(), truth, atol=1e-3, rtol=0)


def test_the_rasterizer_descends_to_a_perfect_teachers_truth():
    gaussians = make_gaussians(20)
    poses = look_at(torch.tensor([[0.0, -2.7, 0.3], [2.7, 0.0, 0.3]]), torch.zeros(3))
    cameras, times = (
        Cameras(poses, intrinsics_from_fov(0.85, 24, 24).expand(2, 3, 3), 24, 24),
        torch.tensor([0.2, 0.8]),
    )
    truth = gaussians.render(cameras, times).image[None]
    distillation = Distillation(DistillationConfig(), PerfectTeacher(truth))
    colors = torch.full_like(gaussians.colors, 0.5).requires_grad_()
    optimizer, generator, errors = torch.optim.Adam([colors], lr=0.05), seeded(), []
    for _ in range(80):
        renders = replace(gaussians, colors=colors).render(cameras, times).image[None]
        errors.append(float((renders.detach() - truth).square().mean()))
        optimizer.zero_grad()
        distillation.loss(renders, generator).backward()
        optimizer.step()
    assert errors[-1] < errors[0] / 100


def test_levels_stay_in_their_range_and_fill_it():
    teacher = PerfectTeacher(draw(1, 1, 3, 2, 2))
    distillation = Distillation(DistillationConfig(levels=(0.35, 0.65), guidance=2.5), teacher)
    generator = seeded()
    for _ in range(200):
        distillation.loss(teacher.truth, generator)
    levels = torch.tensor([level for level, _ in teacher.asked])
    assert 0.35 <= levels.min() < 0.37 and 0.63 < levels.max() <= 0.65
    assert {guidance for _, guidance in teacher.asked} == {2.5} and len(teacher.asked) == 200


def test_latents_pull_back_through_the_encoder_and_pictures_do_not_need_to():
    truth, renders = draw(1, 2, 3, 4, 4, seed=1), draw(1, 2, 3, 4, 4, seed=2)
    pooled = avg_pool2d((renders - truth)[0], 2)[None]
    gradients = {}
    for space in ("latent", "picture"):
        distillation = Distillation(DistillationConfig(space=space), PoolingTeacher(truth))
        pixels = renders.clone().requires_grad_()
        (gradients[space],) = torch.autograd.grad(distillation.loss(pixels, seeded()), pixels)
    # z = 2 pool(x) - 1: each pixel gets a quarter of its cell's 2 (z - f) times 2.
    through = interpolate(2 * 2 * 2 * pooled[0] / 4 / pooled.numel(), scale_factor=2)[None]
    torch.testing.assert_close(gradients["latent"], through, rtol=1e-4, atol=1e-7)
    blurred = interpolate(avg_pool2d(truth[0], 2), scale_factor=2)[None]
    torch.testing.assert_close(gradients["picture"], 2 * (renders - blurred) / renders.numel(), rtol=1e-4, atol=1e-7)


def given(size: int = 10):
    """Pictures, masks and cameras of LAYOUT; not a multiple of the patch, so that padding is in it."""
    images = draw(1, 3, 3, size, size, seed=3)
    visibility = torch.ones(1, 3, 1, size, size, dtype=torch.bool)
    visibility[:, 1:, :, :, : size // 2] = False
    poses = look_at(torch.tensor([[[0, -2.7, 0.0], [1.5, -2.3, 0], [-1.5, -2.3, 0]]]), torch.zeros(3))
    return images, visibility, Cameras(poses, intrinsics_from_fov(0.85, size, size).expand(1, 3, 3, 3), size, size)


def make_inpainter(random: bool = True) -> NanoInpainter:
    torch.manual_seed(0)
    network = InpaintingNetwork(NanoConfig(24, 2, 2, patch=4, words=1, text_width=8, frequencies=16))
    for parameter in network.parameters() if random else ():
        torch.nn.init.normal_(parameter, std=0.1)
    return NanoInpainter(network, torch.device("cpu"))


def test_an_untrained_nano_teacher_wants_the_warps():
    # It answers with the warp where that is seen and grey elsewhere, whatever it is asked (network.py).
    images, visibility, cameras = given()
    teacher = NanoTeacher(make_inpainter(random=False), LAYOUT, images, visibility, cameras)
    distillation = Distillation(DistillationConfig(), teacher)
    renders = draw(1, 2, 3, 10, 10, seed=5)
    made = teacher.decode(distillation.estimate(renders, 0.6, seeded()))
    expected = torch.where(visibility[:, 1:], images[:, 1:], 0.5)
    torch.testing.assert_close(made, expected, atol=2e-3, rtol=0)


def test_the_nano_teacher_gets_no_gradient_and_guidance_1_is_conditional_only():
    images, visibility, cameras = given()
    inpainter = make_inpainter()
    teacher = NanoTeacher(inpainter, LAYOUT, images, visibility, cameras)
    calls = []
    inpainter.network.register_forward_hook(lambda module, inputs, output: calls.append(bool(inputs[4].any())))
    renders = draw(1, 2, 3, 10, 10, seed=5).requires_grad_()
    losses = {}
    for guidance in (1.0, 3.0):
        config = DistillationConfig(guidance=guidance)
        losses[guidance] = Distillation(config, teacher).loss(renders, seeded())
        losses[guidance].backward()
    assert calls == [False, False, True]  # once with all its conditions; guided, once more without the warps
    assert float(losses[1.0]) != float(losses[3.0])
    assert renders.grad.abs().max() > 0 and renders.grad.isfinite().all()
    assert all(parameter.grad is None for parameter in inpainter.network.parameters())


def test_a_clear_word_on_what_cannot_be():
    for wrong in ({"levels": (0.0, 0.5)}, {"levels": (0.6, 0.5)}, {"weight": -1.0}, {"space": "pixels"}):
        with pytest.raises(ValueError, match=r"distillation: .*expected"):
            DistillationConfig(**wrong)
    images, visibility, cameras = given()
    with pytest.raises(ValueError, match="this layout takes 3"):
        NanoTeacher(make_inpainter(), LAYOUT, images[:, :2], visibility[:, :2], cameras[:, :2])
