"""Rectified flow: closed forms of the velocity, of See3D's curve, and of sampling a Gaussian."""

import math

import pytest
import torch

from lrm4d.generation.flow import (
    SAMPLERS,
    add_noise,
    clean_of,
    condition_warp,
    draw_noise_levels,
    flow_loss,
    guide,
    make_scheduler,
    sample_flow,
    velocity_of,
    warp_noise_level,
    warp_weight,
)

MEAN, DEVIATION = 0.7, 0.3


def gaussian_velocity(state: torch.Tensor, level: float) -> torch.Tensor:
    """E[e - z0 | z_t] for z0 ~ N(MEAN, DEVIATION^2)."""
    residual = (state - (1 - level) * MEAN) / ((1 - level) ** 2 * DEVIATION**2 + level**2)
    return level * residual - (MEAN + (1 - level) * DEVIATION**2 * residual)


@pytest.mark.parametrize(("sampler", "tolerance"), [("euler", 0.03), ("dpm", 0.004), ("unipc", 0.004)])
def test_samplers_follow_the_exact_field_of_a_gaussian(sampler, tolerance):
    # The field's flow is affine, the noise e ends at MEAN + DEVIATION e: each sample is known, not only the moments.
    noise = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = MEAN + DEVIATION * noise
    errors = [
        float((sample_flow(gaussian_velocity, noise, steps, sampler) - exact).abs().mean()) for steps in (10, 50)
    ]
    assert errors[1] < errors[0] and errors[1] < tolerance
    made = sample_flow(gaussian_velocity, noise, 50, sampler)
    assert abs(float(made.mean()) - MEAN) < 0.02 and abs(float(made.std()) - DEVIATION) < 0.03


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 4, 10])
def test_a_perfect_denoiser_of_one_picture_gives_it(sampler, shift, steps):
    generator = torch.Generator().manual_seed(1)
    target, noise = torch.randn(2, 1, 5, generator=generator)
    made = sample_flow(
        lambda state, level: velocity_of(state, target, torch.tensor(level)), noise, steps, sampler, shift
    )
    torch.testing.assert_close(made, target, atol=2e-3, rtol=0)


def test_known_pixels_are_kept_and_pull_the_rest_along():
    generator = torch.Generator().manual_seed(2)
    noise, known = torch.randn(2, 1, 6, generator=generator)
    where = torch.tensor([1.0, 1, 1, 0, 0, 0])

    def same_everywhere(state, level):  # a world whose pictures are one colour: the known pixels tell it
        return velocity_of(state, state[:, :3].mean().expand(1, 6), torch.tensor(level))

    made = sample_flow(same_everywhere, noise, 10, "euler", known=(known, where))
    assert torch.equal(made[:, :3], known[:, :3])
    # The last step, at t = 0.1, sees 0.9 of the known colour and 0.1 of the noise.
    colour = 0.9 * known[:, :3].mean() + 0.1 * noise[:, :3].mean()
    torch.testing.assert_close(made[:, 3:], colour.expand(1, 3), atol=1e-5, rtol=0)


def test_velocity_and_clean_picture_are_each_other():
    generator = torch.Generator().manual_seed(3)
    clean, noise = torch.randn(2, 7, generator=generator)
    level = torch.tensor(0.3)
    noisy = add_noise(clean, noise, level)
    torch.testing.assert_close(velocity_of(noisy, clean, level), noise - clean)
    torch.testing.assert_close(clean_of(noisy, noise - clean, level), clean)


def test_loss_is_the_velocitys_and_only_where_weighted():
    generator = torch.Generator().manual_seed(4)
    clean, noise, predicted = torch.randn(3, 2, 3, 3, 4, 4, generator=generator)
    level = torch.tensor([0.5, 0.8])
    noisy = add_noise(clean, noise, level[:, None, None, None, None])
    velocity = velocity_of(noisy, predicted, level[:, None, None, None, None])
    ones = torch.ones(2, 3, 1, 4, 4)
    torch.testing.assert_close(
        flow_loss(predicted, clean, noisy, level, ones), (velocity - noise + clean).square().mean()
    )
    weights = ones.clone()
    weights[..., 0] = 0
    spoiled = predicted.clone()
    spoiled[..., 0] += 9
    torch.testing.assert_close(
        flow_loss(spoiled, clean, noisy, level, weights), flow_loss(predicted, clean, noisy, level, weights)
    )


def test_noise_levels_are_seeded_and_of_their_distribution():
    def levels(seed, **kind):
        return draw_noise_levels(20000, torch.Generator().manual_seed(seed), **kind)

    assert torch.equal(levels(5), levels(5)) and not torch.equal(levels(5), levels(6))
    torch.testing.assert_close(
        levels(5).quantile(torch.tensor([0.25, 0.5])), torch.tensor([0.25, 0.5]), atol=0.02, rtol=0
    )
    logits = levels(5, center=0.8, spread=0.6).logit()
    assert abs(float(logits.mean()) - 0.8) < 0.02 and abs(float(logits.std()) - 0.6) < 0.02


def test_warps_are_noised_by_their_coverage():
    level = torch.tensor([0.0, 0.5, 1.0])
    torch.testing.assert_close(warp_noise_level(level, torch.ones(3)), level / 5)  # See3D's t / 5
    torch.testing.assert_close(warp_noise_level(level, torch.zeros(3)), level)
    torch.testing.assert_close(warp_noise_level(level, torch.full((3,), 0.5)), 0.6 * level)


@pytest.mark.parametrize(
    ("steps", "weight"),
    [(0, 0.8 * math.exp(-4.5)), (30, 0.8 * math.exp(-2.25)), (60, 0.8), (130, 0.9), (200, 1), (900, 1)],
)
def test_see3d_curve_at_its_closed_form(steps, weight):
    torch.testing.assert_close(warp_weight(torch.tensor(steps / 1000)), torch.tensor(float(weight)), atol=1e-4, rtol=0)


def test_conditioned_warps_at_both_ends():
    warp, noisy, noise = torch.randn(3, 1, 2, 3, 4, 4, generator=torch.Generator().manual_seed(7))
    whole, empty = torch.ones(1, 2), torch.zeros(1, 2)
    at_start = condition_warp(warp, noisy, noise, torch.ones(1, 2), whole)
    torch.testing.assert_close(at_start, 0.8 * warp + 0.2 * noise)
    torch.testing.assert_close(condition_warp(warp, noisy, noise, torch.ones(1, 2), empty), noise)
    at_end = condition_warp(warp, noisy, noise, torch.zeros(1, 2), whole)
    torch.testing.assert_close(at_end, noisy, atol=0.05, rtol=0)


def test_guidance_and_what_is_refused():
    conditional, free = torch.tensor([2.0]), torch.tensor([1.0])
    assert guide(conditional, free, 1.0) == conditional and guide(conditional, free, 3.0) == 4
    with pytest.raises(ValueError, match="no sampler"):
        make_scheduler("heun")
    with pytest.raises(ValueError, match="at least one"):
        sample_flow(gaussian_velocity, torch.zeros(1, 1), 0)
