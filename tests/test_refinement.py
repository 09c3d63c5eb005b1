"""Refinement: schedules, density, the loop, its verdict and its resumption."""

from dataclasses import replace

import pytest
import torch
from moving_scene import make_gaussians, make_views

from lrm4d.gaussians4d import Gaussians4D
from lrm4d.metrics import psnr
from lrm4d.refinement.config import (
    Density,
    Rates,
    RefinementConfig,
    Weights,
    plain,
    prior_at,
    rates_at,
    reach_at,
)
from lrm4d.refinement.corrector import Corrector, CorrectorConfig, save_corrector
from lrm4d.refinement.deforming import start_free
from lrm4d.refinement.density import densify_and_prune
from lrm4d.refinement.fit import Fit
from lrm4d.refinement.job import Correction, Refinement
from lrm4d.refinement.objective import Pictures, agreement_loss, picture_loss, stillness_loss
from lrm4d.refinement.optimizer import Adam
from lrm4d.refinement.refiner import Refiner, refine
from lrm4d.refinement.starts import start_in_hull
from lrm4d.refinement.trial import Verdict, held_back
from lrm4d.views import Views

SMALL = RefinementConfig(
    corrector="",
    steps=20,
    nodes=6,
    coarse_nodes=2,
    knots=6,
    count=60,
    held_back=0,
    density=Density(every=5, budget=70),
)

pytestmark = pytest.mark.usefixtures("one_thread")


def spoiled(scale: float = 0.3) -> Gaussians4D:
    """The small scene with wrong colours."""
    scene = make_gaussians()
    generator = torch.Generator().manual_seed(5)
    return replace(scene, colors=(scene.colors + scale * torch.randn(60, 3, generator=generator)).clamp(0, 1))


def quality(scene: Gaussians4D, views: Views) -> float:
    white = torch.ones(3)
    return psnr(scene.render(views.cameras, views.times, white).image, views.composite(white)).mean().item()


def test_schedules_have_their_closed_forms():
    rates = rates_at(Rates(means=0.5, end=0.01), 0.5)
    assert rates["means"] == pytest.approx(0.05) and "end" not in rates
    assert rates_at(Rates(means=0.5, end=0.01), 3.0)["means"] == pytest.approx(0.005)
    assert reach_at(0.4, 0.0) == pytest.approx(0.08) and reach_at(0.4, 0.2) == pytest.approx(0.54)
    assert reach_at(0.4, 0.9) == 1 and reach_at(0.0, 0.0) == 1
    assert prior_at(2.0, 1.0) == pytest.approx(0.2)


def test_held_back_pictures_are_spread_and_few():
    assert held_back(24, 3) == [4, 12, 20]
    assert held_back(7, 3) == [3]
    assert held_back(3, 2) == [] and held_back(24, 0) == []


def test_adam_takes_its_first_step_of_the_rate_and_matches_torch():
    ours, theirs = (torch.tensor([3.0, -2.0], requires_grad=True) for _ in range(2))
    adam = Adam({"x": ours})
    reference = torch.optim.Adam([theirs], lr=0.1, betas=(0.9, 0.99), eps=1e-15)
    for _ in range(5):
        for value in (ours, theirs):
            (value**2).sum().backward()
        adam.step({"x": 0.1})
        reference.step()
        reference.zero_grad()
    torch.testing.assert_close(ours, theirs)


def test_gradients_reach_everything_that_is_learned():
    views = make_views()
    for config in (replace(SMALL, exposure=True), plain(replace(SMALL, exposure=True))):
        refiner = Refiner(spoiled(), views, config)
        refiner._loss(0.9, torch.Generator().manual_seed(0)).backward()
        rates = vars(config.rates)
        for name, value in refiner.fit.adam.parameters.items():
            assert (value.grad is not None and value.grad.abs().max() > 0) == (rates[name] > 0), name


def test_densifying_splits_prunes_and_keeps_the_budget():
    gaussians = make_gaussians()
    free = start_free(gaussians)
    free.gaussians["opacity_logits"][:10] = -9.0
    adam = Adam({name: value.requires_grad_() for name, value in free.gaussians.items()})
    gradients = torch.arange(60.0)
    density = Density(budget=55, growth=0.2, largest=1.0)
    grown = densify_and_prune(free, adam, gradients, density)
    assert len(grown) == 55  # 50 are left, 10 would be split, 5 have room
    parents, children = grown.gaussians["means"][45:50], grown.gaussians["means"][50:].flip(0)
    middles = (parents + children) / 2
    torch.testing.assert_close(middles, gaussians.means[55:], rtol=0, atol=1e-5)
    full = densify_and_prune(grown, adam, torch.zeros(55), replace(density, budget=20))
    assert len(full) == 20 and adam.parameters["means"].shape == (20, 3)
    kept = torch.sigmoid(full.gaussians["opacity_logits"]).min()
    assert (torch.sigmoid(grown.gaussians["opacity_logits"]) > kept).sum() == 19


def test_a_refinement_improves_the_scene_within_its_budget():
    views = make_views(12)
    for config in (replace(SMALL, steps=60), plain(replace(SMALL, steps=60))):
        refiner = Refiner(spoiled(), views, replace(config, density=Density(every=10, budget=66)))
        better = refine(refiner)
        assert quality(better, views) > quality(spoiled(), views) + 1
        assert 60 < len(refiner.fit.deforming) <= 66


def spoil(views: Views) -> Gaussians4D:
    """A maker of starts that are as bad whatever they are made of."""
    return spoiled()


def perfect(views: Views) -> Gaussians4D:
    return make_gaussians()


def test_a_perfect_start_is_kept():
    views = make_views(12)
    config = replace(SMALL, held_back=3, rates=Rates(colors=0.5, means=0.1), trial_steps=12)
    refinement = Refinement(config, None, perfect)
    result = refinement(make_gaussians(), views)
    said = refinement.report["held_back"]
    assert said["choice"] == "start" and said["fitted"] < said["start"] and refinement.report["steps"] == 0
    assert quality(result, views) == quality(make_gaussians(), views)


def test_a_bad_start_is_fitted_to_all_pictures_after_the_trial_without_some(monkeypatch):
    views, seen = make_views(12), []
    choose = Refiner._choose

    def watch(self, times, *rest):
        seen.append((self.config.steps, len(times)))
        return choose(self, times, *rest)

    monkeypatch.setattr(Refiner, "_choose", watch)
    refinement = Refinement(replace(SMALL, held_back=3, trial_steps=30, weights=Weights(prior=0.0)), None, spoil)
    result = refinement(spoiled(), views)
    said = refinement.report["held_back"]
    assert said["choice"] == "fitted" and said["fitted"] > said["start"] and said["corrected"] is None
    assert set(seen) == {(30, 9), (SMALL.steps, 12)} and len(said["views"]) == 3
    assert quality(result, views) > quality(spoiled(), views)


def test_the_verdict_is_the_last_that_none_before_beats_by_the_margin():
    assert Verdict().choose(0.0) == "fitted"
    assert Verdict([1], 20.0, 21.0, 20.8).choose(0.0) == "corrected"
    assert Verdict([1], 20.0, 21.0, 20.8).choose(0.3) == "fitted"
    assert Verdict([1], 21.0, 20.0, 20.5).choose(0.0) == "start"
    assert Verdict([1], 21.0, 20.8, 20.5).choose(0.3) == "corrected"
    assert Verdict([1], 20.0, 20.0, None).choose(0.0) == "corrected"
    assert Verdict([1], 20.0, None, 20.1).choose(0.0) == "fitted"


def test_a_corrector_that_makes_the_inputs_worse_is_left_out(tmp_path):
    corrector = Corrector(CorrectorConfig(width=16, pooled=8, latent=4, rounds=1))
    torch.nn.init.constant_(corrector.to_changes.bias, 1.0)
    save_corrector(corrector, tmp_path)
    views = make_views(12)
    assert quality(corrector.correct(make_gaussians(), views), views) < 30
    assert torch.equal(Correction(str(tmp_path))(make_gaussians(), views).colors, make_gaussians().colors)
    config = replace(SMALL, corrector=str(tmp_path), held_back=3, trial_steps=0)
    refinement = Refinement(config, None, perfect)
    result = refinement(make_gaussians(), views)
    assert refinement.report["steps"] == 0
    assert torch.equal(result.colors, make_gaussians().colors)


@pytest.mark.parametrize("stop", [7, 17])
def test_a_resumed_refinement_is_the_uninterrupted_one(tmp_path, one_thread, stop):
    views = make_views(8)
    config = replace(SMALL, exposure=True)
    whole = Refiner(spoiled(), views, config)
    for step in range(config.steps):
        whole.step(step / config.steps)
    first = Refiner(spoiled(), views, config)
    for step in range(stop):
        first.step(step / config.steps)
    first.save(tmp_path / "state.safetensors")
    second = Refiner(spoiled(), views, config)
    second.load(tmp_path / "state.safetensors")
    for step in range(stop, config.steps):
        second.step(step / config.steps)
    for name, value in whole.fit.tensors().items():
        assert torch.equal(second.fit.tensors()[name], value), name


def test_the_state_of_another_task_is_refused(tmp_path):
    views = make_views(8)
    Refiner(spoiled(), views, SMALL).save(tmp_path / "state.safetensors")
    with pytest.raises(ValueError, match="delete the file"):
        Refiner(spoiled(), views, replace(SMALL, seed=1)).load(tmp_path / "state.safetensors")
    (tmp_path / "state.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"state\.safetensors"):
        Refiner(spoiled(), views, SMALL).load(tmp_path / "state.safetensors")


def test_seconds_bound_the_refinement_and_the_state_is_removed_at_the_end(tmp_path):
    views = make_views(8)
    state = tmp_path / "state.safetensors"
    refinement = Refinement(replace(SMALL, steps=100_000), seconds=0.5, state=state)
    refinement(spoiled(), views)
    assert 0.5 <= refinement.report["seconds"] < 5 and refinement.report["steps"] >= 1
    assert not state.exists()


def test_the_start_made_without_the_held_back_pictures_is_the_one_judged():
    views = make_views(12)
    asked = []

    def make_start(rest: Views) -> Gaussians4D:
        asked.append(len(rest))
        return spoiled()

    refinement = Refinement(replace(SMALL, held_back=3, trial_steps=0), None, make_start)
    refinement(make_gaussians(), views)
    judges = views[held_back(12, 3)]
    white = torch.ones(3)
    half = judges.resize(judges.cameras.width // 2, judges.cameras.height // 2)
    drawn = spoiled().render(half.cameras, half.times, white).image
    assert asked == [9]
    assert refinement.report["held_back"]["start"] == pytest.approx(psnr(drawn, half.composite(white)).mean().item())


def test_a_stopped_fit_keeps_its_verdict(tmp_path):
    """What was judged before the stop is in the state: nothing is made or judged again."""
    views, state = make_views(8), tmp_path / "state.safetensors"
    config = replace(SMALL, held_back=2, trial_steps=4)
    stopped = Refiner(spoiled(), views, config)
    stopped.step(0.0)
    stopped.judged = {"views": [2, 6], "start": 10.0, "corrected": None, "fitted": 11.0}
    stopped.save(state)

    def refuse(_: Views) -> Gaussians4D:
        raise AssertionError("asked again")

    refinement = Refinement(config, None, refuse, state=state)
    refinement(spoiled(), views)
    assert refinement.report["held_back"]["fitted"] == 11.0 and refinement.report["steps"] == config.steps


def test_exposure_finds_a_known_gain():
    views = make_views(8)
    darker = replace(views, images=views.images.clone())
    darker.images[3] *= 0.7
    still = Rates(0.0, 0.0, 0.0, 0.0, 0.0, steps=0.0, exposures=0.02, end=1.0)
    weights = Weights(ssim=0.0, prior=0.0, exposure=1e-4)
    config = replace(SMALL, nodes=0, exposure=True, rates=still, weights=weights, views=8, steps=80, grow=0.0)
    refiner = Refiner(make_gaussians(), darker, replace(config, density=Density(every=1000)))
    refine(refiner)
    gains = refiner.fit.adam.parameters["exposures"].detach().exp()
    torch.testing.assert_close(gains[3], torch.full((3,), 0.7), atol=0.06, rtol=0)
    torch.testing.assert_close(gains[:3], torch.ones(3, 3), atol=0.04, rtol=0)


@pytest.mark.parametrize("nodes", [0, 6])
def test_a_scene_at_rest_stays_at_rest_with_the_motion_regularizer(nodes):
    scene = make_gaussians()
    scene = replace(scene, right_quaternions=scene.left_quaternions)
    cameras = make_views(8).cameras
    drawn = scene.render(cameras, torch.linspace(0, 1, 8), torch.zeros(3))
    images = (drawn.image / drawn.alpha.clamp(min=1e-4)).clamp(0, 1)
    views = Views(images, drawn.alpha.clamp(0, 1), cameras, torch.linspace(0, 1, 8))
    config = SMALL if nodes else plain(SMALL)
    speeds = []
    for stillness in (0.0, 1.0):
        weights = replace(config.weights, stillness=stillness, prior=0.0)
        refiner = Refiner(spoiled_at_rest(scene), views, replace(config, weights=weights, steps=60, views=4))
        refine(refiner)
        speeds.append(stillness_loss(refiner.fit.deforming).item())
    assert speeds[1] < 0.02 and speeds[1] < 0.5 * speeds[0]


def spoiled_at_rest(scene: Gaussians4D) -> Gaussians4D:
    return replace(scene, colors=0.5 * scene.colors, means=scene.means + 0.01)


def test_neighbours_that_move_alike_cost_nothing():
    groups = torch.tensor([0, 0, 1, 1])
    alike = torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 2.0, 0], [0, 2.0, 0]])
    assert agreement_loss(alike, groups) == 0
    torch.testing.assert_close(
        agreement_loss(alike * torch.tensor([1.0, -1, 1, 1])[:, None], groups), torch.tensor(0.5)
    )


def test_what_has_no_confidence_does_not_count():
    generator = torch.Generator().manual_seed(0)
    drawn, truth = (
        Pictures(torch.rand(2, 3, 16, 16, generator=generator), torch.ones(2, 1, 16, 16), torch.ones(2, 1, 16, 16))
        for _ in range(2)
    )
    background = torch.zeros(2, 3)
    weights = Weights(ssim=0.0)
    both = picture_loss(drawn, truth, background, weights)
    unsure = replace(truth, confidences=truth.confidences * torch.tensor([1.0, 0.0])[:, None, None, None])
    first = picture_loss(drawn[:1], truth[:1], background[:1], weights)
    torch.testing.assert_close(both, (drawn.colors - truth.colors).square().mean())
    torch.testing.assert_close(picture_loss(drawn, unsure, background, weights), first / 2)


def test_a_start_in_the_hull_is_within_the_silhouettes():
    views = make_views(8, width=48, height=48)
    start = start_in_hull(views, 500, torch.Generator().manual_seed(0))
    assert len(start) == 500 and torch.equal(start.left_quaternions, start.right_quaternions)
    drawn = start.render(views.cameras, views.times)
    outside = views.alphas < 0.01
    assert drawn.alpha[outside].mean() < 0.1 * drawn.alpha[~outside].mean()
    nowhere = replace(views, alphas=torch.zeros_like(views.alphas))
    with pytest.raises(ValueError, match="silhouettes"):
        start_in_hull(nowhere, 10, torch.Generator().manual_seed(0))


def test_a_teacher_may_pull_at_the_renders():
    views = make_views(8)
    asked = []

    def darken(render, step):
        asked.append(step)
        return 10 * render(views.cameras[:1], views.times[:1]).square().mean()

    refine(Refiner(make_gaussians(), views, replace(SMALL, steps=4), extra_loss=darken))
    assert asked == [0, 1, 2, 3]


def test_a_fit_becomes_another_whole():
    config = replace(SMALL, exposure=True)
    fit, other = Fit(spoiled(), 8, config), Fit(make_gaussians(), 8, config)
    other.restore(fit.tensors())
    for name, value in fit.tensors().items():
        assert torch.equal(other.tensors()[name], value), name
