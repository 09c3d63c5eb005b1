"""The corrector: the pictures' demands are gradients, an untrained one changes nothing, a trained one is a file."""

from dataclasses import replace

import pytest
import torch
from moving_scene import make_gaussians, make_views, quality, spoiled

from lrm4d.gaussians4d import to_model_time
from lrm4d.pretrained import DEFAULT
from lrm4d.reconstruction.pretrained import list_pretrained
from lrm4d.refinement.corrector import (
    Corrector,
    CorrectorConfig,
    apply_changes,
    corrector_of,
    load_corrector,
    mean_over_cells,
    save_corrector,
)
from lrm4d.refinement.deforming import start_free
from lrm4d.refinement.demands import COARSER, FOOTPRINT, ask_pictures, moments_of
from lrm4d.refinement.fit import draw_slices

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = CorrectorConfig(width=16, pooled=8, latent=4, rounds=2)


def test_demands_summed_over_pictures_are_the_gradients_of_the_whole_error(monkeypatch):
    monkeypatch.setattr("lrm4d.refinement.demands.FAINTEST", 0.0)
    views, state = make_views(6), start_free(spoiled())
    owners, gradients, gaps = ask_pictures(state, views, 0.3, False)
    names = ("means", "opacity_logits", "colors", "velocities", "time_means", "log_time_deviations")
    leaves = {name: state.gaussians[name].clone().requires_grad_() for name in names}
    sliced = replace(state, gaussians={**state.gaussians, **leaves}).slice_at(to_model_time(views.times))
    drawn = draw_slices(sliced, views.cameras.reshape(-1, 1), 0.3, False)[:, 0]
    white = torch.ones(6, 3)
    error = (drawn.on(white) - views.composite(white[0])).square().sum()
    error = error + (drawn.alphas - views.alphas).square().sum()
    error.backward()
    scale = views.footprint() / FOOTPRINT
    sums = torch.zeros(60, gradients.shape[1]).index_add(0, owners, gradients) / scale
    sizes = state.gaussians["log_scales"].mean(-1, keepdim=True).exp()
    torch.testing.assert_close(sums[:, :3], sizes * leaves["means"].grad, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(sums[:, 5:8], leaves["colors"].grad, rtol=1e-3, atol=1e-4)
    # d/d log(opacity) = (d/d logit) / (1 - opacity)
    opacities = torch.sigmoid(state.gaussians["opacity_logits"])
    torch.testing.assert_close(sums[:, 4], leaves["opacity_logits"].grad / (1 - opacities), rtol=1e-3, atol=1e-3)
    assert gradients.shape[1] == 8 * (1 + len(COARSER))
    moments = moments_of(gradients, gaps)
    course = torch.zeros(60, moments.shape[1]).index_add(0, owners, moments) / scale
    durations = state.gaussians["log_time_deviations"].exp()
    velocity = leaves["velocities"].grad * sizes / durations[:, None]
    torch.testing.assert_close(course[:, :3], velocity, rtol=1e-3, atol=1e-3)
    # The time's gradient is that of the opacity, and that of the place, which goes against the velocity.
    place = (state.gaussians["velocities"] * leaves["means"].grad).sum(-1)
    torch.testing.assert_close(course[:, 3] / durations - place, leaves["time_means"].grad, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(course[:, 4], leaves["log_time_deviations"].grad, rtol=1e-3, atol=1e-3)


def test_the_faint_are_not_asked(monkeypatch):
    views, state = make_views(6), start_free(spoiled())
    state.gaussians["opacity_logits"][:10] = -8.0
    owners = ask_pictures(state, views, 0.3, False).gaussians
    assert owners.min() >= 10 and set(owners.tolist()) == set(range(10, 60))


def test_pictures_may_be_asked_in_runs(monkeypatch):
    views, state = make_views(6), start_free(spoiled())
    whole = ask_pictures(state, views, 0.3, False)
    monkeypatch.setattr("lrm4d.refinement.demands.CHUNK_BYTES", 2 * 60 * 13 * 16)
    for one, other in zip(whole, ask_pictures(state, views, 0.3, False), strict=True):
        torch.testing.assert_close(one, other)


def test_an_untrained_corrector_changes_nothing():
    views, scene = make_views(6), make_gaussians()
    corrected = Corrector(SMALL).correct(scene, views)
    pictures = [one.render(views.cameras, views.times).image for one in (scene, corrected)]
    torch.testing.assert_close(*pictures, rtol=0, atol=1e-3)


def test_a_corrector_learns_to_mend_colours_that_it_never_saw_the_truth_of():
    """Trained on some spoiled scenes by other pictures than it is given, it mends another one."""
    torch.manual_seed(0)
    corrector = Corrector(SMALL)
    optimizer = torch.optim.Adam(corrector.parameters(), lr=1e-2)
    given, others = make_views(12)[::2], make_views(12)[1::2]
    truth = others.composite(torch.ones(3))
    for seed in range(60):
        scene = make_gaussians()
        noise = 0.3 * torch.randn(60, 3, generator=torch.Generator().manual_seed(100 + seed))
        state = corrector(replace(scene, colors=(scene.colors + noise).clamp(0, 1)), given)[-1]
        slices = state.slice_at(to_model_time(others.times))
        drawn = draw_slices(slices, others.cameras.reshape(-1, 1), scene.low_pass, False)[:, 0]
        optimizer.zero_grad()
        (drawn.on(torch.ones(6, 3)) - truth).square().mean().backward()
        optimizer.step()
    start = spoiled()
    assert quality(corrector.correct(start, given), others) > quality(start, others) + 1


def test_changes_are_in_the_gaussians_own_units():
    state = start_free(make_gaussians())
    changes = torch.zeros(60, 15)
    changes[:, 0], changes[:, 12] = 1.0, 1.0
    changed, g = apply_changes(state, changes).gaussians, state.gaussians
    sizes, durations = g["log_scales"].mean(-1).exp(), g["log_time_deviations"].exp()
    torch.testing.assert_close(changed["means"][:, 0], g["means"][:, 0] + 0.5 * sizes)
    torch.testing.assert_close(changed["velocities"][:, 0], g["velocities"][:, 0] + 0.3 * sizes / durations)
    for name in ("opacity_logits", "colors", "time_means", "quaternions"):
        torch.testing.assert_close(changed[name], g[name])


def test_the_mean_over_cells_is_that_of_the_neighbours_by_opacity():
    gaussians = {
        "means": torch.tensor([[0.01, 0.01, 0.01], [0.03, 0.02, 0.01], [0.5, 0, 0], [0.01, 0.01, 0.01]]),
        "time_means": torch.tensor([0.05, 0.05, 0.05, 0.9]),
        "opacity_logits": torch.logit(torch.tensor([0.2, 0.6, 0.5, 0.5])),
    }
    means = mean_over_cells(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), gaussians, 0.1, 0.1)
    torch.testing.assert_close(means, torch.tensor([[1.75], [1.75], [3.0], [4.0]]))


def test_weights_come_back_and_wrong_ones_are_told(tmp_path):
    corrector = Corrector(SMALL)
    torch.nn.init.normal_(corrector.to_changes.weight)
    save_corrector(corrector, tmp_path / "one")
    loaded = load_corrector(tmp_path / "one")
    assert loaded.config == SMALL
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in corrector.state_dict().items())
    save_corrector(Corrector(CorrectorConfig(width=24)), tmp_path / "two")
    (tmp_path / "two" / "config.json").write_text((tmp_path / "one" / "config.json").read_text())
    with pytest.raises(ValueError, match="do not fit"):
        load_corrector(tmp_path / "two")
    with pytest.raises(ValueError, match="no corrector called 'none'"):
        load_corrector("none")


def test_each_shipped_network_has_its_corrector_and_others_have_the_defaults():
    for name in list_pretrained():
        assert corrector_of(name) == name
        assert corrector_of(f"some/{name}") == name
        load_corrector(name)
    assert corrector_of("runs/mine") == corrector_of("") == DEFAULT
