"""Refinement: schedules, density, the loop, its blend and its resumption."""

from dataclasses import replace

import pytest
import torch
from moving_scene import SMALL_REFINEMENT as SMALL
from moving_scene import make_gaussians, make_views, quality, spoiled

from lrm4d.config import make_config
from lrm4d.gaussians4d import Gaussians4D
from lrm4d.refinement.blending import blend
from lrm4d.refinement.config import (
    Density,
    Rates,
    RefinementConfig,
    Weights,
    plain,
    rates_at,
    reach_at,
    weights_at,
)
from lrm4d.refinement.corrector import Corrector, CorrectorConfig, save_corrector
from lrm4d.refinement.deforming import start_free
from lrm4d.refinement.density import densify_and_prune
from lrm4d.refinement.fit import Fit
from lrm4d.refinement.job import Correction, Refinement
from lrm4d.refinement.objective import Pictures, agreement_loss, picture_loss, stillness_loss
from lrm4d.refinement.optimizer import Adam
from lrm4d.refinement.refiner import DOUBT, Refiner, refine
from lrm4d.refinement.starts import start_in_hull
from lrm4d.views import Views

pytestmark = pytest.mark.usefixtures("one_thread")


def test_schedules_have_their_closed_forms():
    rates = rates_at(Rates(means=0.5, end=0.01), 0.5)
    assert rates["means"] == pytest.approx(0.05) and "end" not in rates
    assert rates_at(Rates(means=0.5, end=0.01), 3.0)["means"] == pytest.approx(0.005)
    assert reach_at(0.4, 0.0) == pytest.approx(0.08) and reach_at(0.4, 0.2) == pytest.approx(0.54)
    assert reach_at(0.4, 0.9) == 1 and reach_at(0.0, 0.0) == 1
    weights = weights_at(Weights(prior=2.0, rigidity=3.0), 0.5)
    assert weights.prior == pytest.approx(0.2**0.5 * 2**0.5) and weights.rigidity == pytest.approx(0.1**0.5 * 3)
    assert weights.alpha == Weights().alpha


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


def test_a_corrector_that_makes_the_inputs_worse_is_left_out(tmp_path):
    corrector = Corrector(CorrectorConfig(width=16, pooled=8, latent=4, rounds=1))
    torch.nn.init.constant_(corrector.to_changes.bias, 1.0)
    save_corrector(corrector, tmp_path)
    views = make_views(12)
    assert quality(corrector.correct(make_gaussians(), views), views) < 30
    assert torch.equal(Correction(str(tmp_path))(make_gaussians(), views).colors, make_gaussians().colors)
    refinement = Refinement(replace(SMALL, corrector=str(tmp_path), shares=(1.0, 0.0)), None)
    result = refinement(make_gaussians(), views)
    assert not refinement.report["corrected"]
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
    assert 0.5 <= refinement.report["seconds"] < 5 and refinement.report["steps"][0] >= 1
    assert not list(tmp_path.iterdir())


def test_a_fit_that_has_no_time_is_left_out():
    views, start = make_views(8), spoiled()
    for seconds in (0.0, 1e-6):
        refinement = Refinement(SMALL, seconds)
        assert torch.equal(refinement(start, views).colors, start.colors)


def test_a_refinement_is_the_blend_of_its_start_and_its_fit():
    views, start = make_views(8), spoiled()
    refinement = Refinement(replace(SMALL, shares=(0.2, 0.7)), None)
    fitted = refine(Refiner(start, views, refinement.config))
    expected, result = blend((start, fitted), (0.2, 0.7)), refinement(start, views)
    for name, value in expected.tensors().items():
        assert torch.equal(value, result.tensors()[name]), name
    assert refinement.report["gaussians"] == len(result) <= len(start) + len(fitted)


def test_each_fit_has_its_origin_and_learns_from_those_before():
    """The second one's prior is the blend so far; the later counts twice as much."""
    views, start = make_views(8), spoiled()
    config = replace(SMALL, shares=(0.2, 0.6), origins=(0.25, 0.75))
    first = refine(Refiner(start, views, config))
    so_far = blend((start, first), (0.2, 0.6))
    second = refine(Refiner(start, views, config, member=1, prior=so_far))
    told: list[tuple[str, Gaussians4D]] = []
    refinement = Refinement(config, None, watch=lambda name, scene: told.append((name, scene)))
    result = refinement(start, views)
    expected = blend((start, first, second), (0.2, 0.2, 0.4))
    assert [name for name, _ in told] == ["corrected", "fit", "blend", "fit", "blend"]
    assert refinement.report["steps"] == [20, 20]
    for got, wanted in ((told[1][1], first), (told[2][1], so_far), (told[3][1], second), (result, expected)):
        for name, value in wanted.tensors().items():
            assert torch.equal(value, got.tensors()[name]), name


@pytest.mark.parametrize("origin", [0.0, 0.25, 1.0])
def test_a_motion_is_at_rest_at_its_origin(origin):
    """There the fit is what the scene shows at that moment, however the nodes move."""
    config = replace(SMALL, origins=(origin,), knots=5)
    deforming = Fit(make_gaussians(), 8, config).deforming
    with torch.no_grad():
        for steps in deforming.motion.values():
            steps.normal_(generator=torch.Generator().manual_seed(0))
    transforms = deforming.transforms_at(torch.tensor([2 * origin - 1, 0.3]))
    still = torch.eye(3, 4).expand(len(transforms[0]), 3, 4)
    torch.testing.assert_close(transforms[0], still, atol=1e-6, rtol=0)
    assert (transforms[1] - still).abs().amax() > 0.1
    moment = make_gaussians().slice_at(torch.tensor([2 * origin - 1]))
    seen = moment.opacities[0] >= config.faintest
    means = deforming.gaussians["means"]
    assert len(means) == min(config.count, int(seen.sum()))
    gaps = torch.cdist(means, moment.means[0, seen], compute_mode="donot_use_mm_for_euclid_dist")
    assert gaps.amin(dim=1).max() < 1e-5


def test_pictures_near_the_origin_come_first():
    views = make_views(8)
    refiner = Refiner(spoiled(), views, replace(SMALL, origins=(0.25,), views=200))
    generator = torch.Generator().manual_seed(0)
    for progress in (0.0, 0.2, 1.0):
        chosen = views.times[refiner._choose(progress, generator)]
        assert len(chosen.unique()) == len(chosen)
        reach = max(0.75 * reach_at(refiner.config.grow, progress), (views.times - 0.25).abs().min().item())
        within = views.times[(views.times - 0.25).abs() <= reach + 1e-6]
        assert set(chosen.tolist()) == set(within.tolist())


def test_the_prior_looks_at_the_moments_of_the_inputs():
    """From cameras of other inputs, at what was there before the fit; the inputs come first."""
    views, scene = make_views(8), spoiled()
    refiner = Refiner(scene, views, SMALL)
    cameras, pictures = refiner.whole
    assert cameras.shape == pictures.colors.shape[:2] == (8, 10)
    for name, value in vars(refiner.pictures).items():
        assert torch.equal(vars(pictures)[name][:, 0], value)
    for look in (1, 9):
        told = scene.render(cameras[:, look], views.times, torch.zeros(3))
        torch.testing.assert_close(pictures.colors[:, look], told.image)
        torch.testing.assert_close(pictures.alphas[:, look], told.alpha)
    known = {tuple(pose.flatten().tolist()) for pose in views.cameras.camera_to_world}
    assert {tuple(pose.flatten().tolist()) for pose in cameras.camera_to_world.flatten(0, 1)} == known


def test_rigidity_weighs_by_what_the_start_leaves_unexplained():
    views = make_views(8)
    assert Refiner(make_gaussians(), views, SMALL).doubt < 0.01
    assert Refiner(spoiled(), views, SMALL).doubt == 1
    white = torch.ones(3)
    drawn = make_gaussians().render(views.cameras, views.times, white).image
    darker = replace(views, images=views.images - 0.02)
    expected = (drawn - darker.composite(white)).square().mean().item() / DOUBT
    assert 0.01 < expected < 0.9
    assert Refiner(make_gaussians(), darker, SMALL).doubt == pytest.approx(expected)


def test_a_stopped_refinement_goes_on_with_its_fits(tmp_path):
    """Stopped in the second fit: the first is read, the second goes on, the result is the uninterrupted one."""
    views, start = make_views(8), spoiled()
    config = replace(SMALL, origins=(0.5, 0.25))
    whole = Refinement(config, None)(start, views)

    class StoppedError(Exception):
        pass

    def stop(name: str, done: int, of: int) -> None:
        if done > 0.6 * of:
            raise StoppedError

    state = tmp_path / "state.safetensors"
    with pytest.raises(StoppedError):
        Refinement(config, None, state=state)(start, views, stop)
    assert [file.name for file in tmp_path.iterdir()] == ["state-0.safetensors"]
    seen = []
    again = Refinement(config, None, state=state)(start, views, lambda name, done, of: seen.append(done / of))
    assert min(seen) >= 0.5 and seen == sorted(seen)
    for name, value in whole.tensors().items():
        assert torch.equal(again.tensors()[name], value), name
    assert not list(tmp_path.iterdir())


class Ticking:
    """A clock that goes on by a hundredth of a second whenever it is read."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.01
        return self.now


def test_another_fit_is_begun_only_if_time_is_left_for_half_of_it():
    views, start = make_views(8), spoiled()
    clock = Ticking()
    for seconds, fits in ((1000.0, 3), (0.45, 2), (0.3, 1)):
        clock.now = 0.0
        refinement = Refinement(replace(SMALL, origins=(0.5, 0.25, 0.75)), seconds, clock=clock)
        refinement(start, views)
        assert len(refinement.report["steps"]) == fits, seconds


def test_the_last_fit_leaves_time_for_what_comes_after_it():
    """Writing its motion and blending take two seconds here."""
    views, start = make_views(8), spoiled()
    clock = Ticking()

    def watch(name: str, scene: Gaussians4D) -> None:
        clock.now += 0.0 if name == "corrected" else 1.0

    config = replace(SMALL, origins=(0.5, 0.25, 0.75), steps=100)
    refinement = Refinement(config, seconds=8.5, clock=clock, watch=watch)
    refinement(start, views)
    steps = refinement.report["steps"]
    assert steps[:2] == [100, 100] and 20 < steps[2] < 100
    assert 8.3 < clock.now < 8.6


def test_a_scene_blended_with_itself_is_as_dense_as_before():
    """Of single Gaussians in the middle; in pictures where opacities are small, as a Gaussian's edge is."""
    views, scene = make_views(6), make_gaussians()
    half = blend((scene,), (0.5,))
    torch.testing.assert_close((1 - half.opacities).square(), 1 - scene.opacities)
    scene, black = replace(scene, opacities=0.1 * scene.opacities), torch.zeros(3)
    alone = scene.render(views.cameras, views.times, black)
    both = blend((scene, scene, scene), (0.3, 0.7, 0.0)).render(views.cameras, views.times, black)
    torch.testing.assert_close(both.alpha, alone.alpha, rtol=0, atol=0.03)


def test_the_blend_of_two_wrong_scenes_is_better_than_each():
    """Errors that have nothing to do with each other cancel: half their squares is left where opacities are small."""
    views = make_views(8)
    scenes = []
    for seed in (1, 2):
        noise = torch.randn(60, 3, generator=torch.Generator().manual_seed(seed))
        scene = make_gaussians()
        scenes.append(replace(scene, colors=scene.colors + 0.3 * noise))
    apart = [quality(scene, views) for scene in scenes]
    assert quality(blend(scenes, (0.5, 0.5)), views) > max(apart) + 0.8


@pytest.mark.parametrize(("shares", "said"), [((0.0, 0.0), "not all 0"), ((1.0,), "one share"), ((1.0, -1.0), ">= 0")])
def test_shares_that_make_no_scene_are_refused(shares, said):
    with pytest.raises(ValueError, match=said):
        blend((make_gaussians(), make_gaussians()), shares)


@pytest.mark.parametrize("shares", ["[1]", "[0.3, 0.3, 0.4]", "[0, 0]", "[-1, 1]"])
def test_wrong_shares_are_refused_before_anything_is_done(shares):
    with pytest.raises(ValueError, match=r"one share|TupleConfig length"):
        make_config(RefinementConfig, [f"shares={shares}"])


def test_scenes_that_are_filtered_differently_do_not_blend():
    with pytest.raises(ValueError, match="low_pass"):
        blend((make_gaussians(), replace(make_gaussians(), low_pass=0.7)), (0.5, 0.5))


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


def test_the_picture_loss_is_what_its_terms_say_and_so_are_its_gradients():
    """Against the same written in single operations, in double precision."""
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    shapes = ((5, 2, 3, 12, 14), (5, 2, 1, 12, 14), (5, 2, 1, 12, 14))
    drawn, truth = (Pictures(*(random(*shape) for shape in shapes)) for _ in range(2))
    truth = truth.weighed([1.0, 0.4])
    assert truth.confidences[:, 1].max() <= 0.4 < truth.confidences[:, 0].max()
    backgrounds, weights = random(5, 2, 3), Weights(alpha=0.3, ssim=0.0)
    leaves = drawn.colors.requires_grad_(), drawn.alphas.requires_grad_()
    on = [one.colors + (1 - one.alphas) * backgrounds[..., None, None] for one in (drawn, truth)]
    expected = (truth.confidences * (on[0] - on[1]).square()).mean()
    expected = expected + 0.3 * (truth.confidences * (drawn.alphas - truth.alphas).square()).mean()
    loss = picture_loss(drawn, truth, backgrounds, weights)
    torch.testing.assert_close(loss, expected)
    for got, wanted in zip(
        torch.autograd.grad(2 * loss, leaves), torch.autograd.grad(2 * expected, leaves), strict=True
    ):
        torch.testing.assert_close(got, wanted)
