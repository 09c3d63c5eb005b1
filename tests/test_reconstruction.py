import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lrm4d.cameras import Cameras, intrinsics_from_fov, look_at, project
from lrm4d.reconstruction import CONFIGS, ModelConfig, ReconstructionModel, evidence, pretrained
from lrm4d.reconstruction.attention import attend_by_sdpa
from lrm4d.reconstruction.gaussian_head import activate, activate_from_pixels, change_raw, place_on_rays
from lrm4d.reconstruction.matching import find_peaks
from lrm4d.reconstruction.pretrained import load_pretrained, save_pretrained
from lrm4d.reconstruction.tokenizer import cut_patches, find_empty_patches
from lrm4d.views import Views

TINY = ModelConfig(width=64, layers=2, head_width=32)
TINY_WITH_ALL = replace(
    TINY,
    near=None,
    far=None,
    residual_start=True,
    evidence_distances=12,
    evidence_features=4,
    second_look=5,
    third_look_step=0.01,
    exits=True,
)


def cameras_around(count: int, width: int, height: int, seed: int = 0) -> Cameras:
    origins = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    origins = 2.7 * torch.nn.functional.normalize(origins, dim=-1)
    intrinsics = intrinsics_from_fov(0.857, width, height).expand(count, 3, 3)
    return Cameras(look_at(origins, torch.zeros(3)), intrinsics, width, height)


def sphere_views(scenes: int, count: int, width: int = 32, height: int = 24, radius: float = 0.5) -> Views:
    """A sphere, each point coloured by its position, seen from around, by intersecting every ray."""
    cameras = cameras_around(scenes * count, width, height)
    origins, directions = cameras.rays()
    middle = -(origins * directions).sum(-1, keepdim=True)
    nearest = origins + middle * directions
    half = (radius**2 - nearest.square().sum(-1, keepdim=True)).clamp(min=0).sqrt()
    points = origins + (middle - half) * directions
    alphas = (half > 0).float().movedim(-1, -3)
    images = (points.movedim(-1, -3) / radius + 1) / 2 * alphas
    times = torch.linspace(0, 1, count).repeat(scenes)
    views = Views(images, alphas, cameras, times)
    return Views(
        *(x.unflatten(0, (scenes, count)) for x in (images, alphas)),
        *(views.cameras.reshape(scenes, count), times.unflatten(0, (scenes, count))),
    )


def build(config: ModelConfig) -> ReconstructionModel:
    torch.manual_seed(0)
    return ReconstructionModel(config).eval()


@pytest.mark.parametrize(("name", "millions"), [("base", 86.4), ("large", 304.0)])
def test_parameter_counts_are_the_papers(name, millions):
    with torch.device("meta"):
        model = ReconstructionModel(CONFIGS[name])
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
    width, layers = CONFIGS[name].width, CONFIGS[name].layers
    linear = layers * 12 * width**2 + 640 * width + 1280 * width
    norms = width * (2 * layers + 2) + 2 * 64 * layers
    assert sum(p.numel() for p in model.parameters()) == linear + norms


@pytest.mark.parametrize(("name", "shape"), [("nano", (256, 8)), ("small", (256, 12))])
def test_small_sizes(name, shape):
    assert (CONFIGS[name].width, CONFIGS[name].layers) == shape
    assert CONFIGS[name].evidence_distances > 0 and CONFIGS[name].residual_start


@pytest.mark.parametrize("config", [TINY, TINY_WITH_ALL], ids=["paper", "evidence"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_number_of_views_and_any_multiple_of_the_patch(config, count):
    views = sphere_views(1, count, width=40, height=16)
    gaussians = build(config)(views).gaussians
    kept = ~find_empty_patches(views, 8)
    expected = 2 * (views.alphas > 0).sum() if config.residual_start else 64 * kept.sum()
    assert gaussians.means.shape == (1, int(expected), 3)
    assert all(torch.isfinite(value).all() for value in gaussians.tensors().values())
    assert gaussians.means.abs().max() <= 1


def test_a_size_that_cannot_be_cut_is_refused():
    with pytest.raises(ValueError, match="multiples of 8, for example 32 x 16"):
        build(TINY)(sphere_views(1, 1, width=33, height=17))


def test_empty_patches_make_no_tokens_and_no_gaussians():
    views = sphere_views(1, 3)
    alphas = views.alphas.clone()
    alphas[:, 1] = 0  # the second picture shows nothing
    views = replace(views, alphas=alphas)
    patches = cut_patches(views, 8, skip_empty=True)
    assert 0 < patches.lengths[0] < 2 * 12 and not (patches.views == 1).any()
    everything = cut_patches(views, 8, skip_empty=False)
    assert everything.lengths == [3 * 12]
    nothing = replace(views, alphas=torch.zeros_like(alphas))
    assert build(TINY_WITH_ALL)(nothing).gaussians.means.shape == (1, 0, 3)


def test_opaque_pictures_are_empty_where_they_are_white():
    views = sphere_views(1, 2)
    white = replace(views, images=views.composite(torch.ones(3)), alphas=torch.ones_like(views.alphas))
    assert torch.equal(find_empty_patches(white, 8), find_empty_patches(views, 8))


@pytest.mark.parametrize("config", [TINY, TINY_WITH_ALL], ids=["paper", "evidence"])
def test_skipping_changes_nothing_where_nothing_is_empty(config):
    views = sphere_views(1, 3, radius=0.9)
    alphas = torch.ones_like(views.alphas) * 0.5
    views = replace(views, alphas=alphas, images=views.images * 0.8)
    model = build(config)
    with torch.no_grad():
        skipping = model(views).gaussians
        model.config = replace(config, skip_empty=False)
        everything = model(views).gaussians
    for name, value in skipping.tensors().items():
        torch.testing.assert_close(value, getattr(everything, name))


@pytest.mark.parametrize("config", [TINY, TINY_WITH_ALL], ids=["paper", "evidence"])
def test_packed_scenes_do_not_see_each_other(config):
    """Two scenes with different numbers of tokens in one batch equal each scene alone."""
    views = sphere_views(2, 3)
    alphas = views.alphas.clone()
    alphas[1, 0] = 0
    views = replace(views, alphas=alphas)
    model = build(config)
    with torch.no_grad():
        together = model(views).gaussians
        for scene in range(2):
            alone = model(views[scene : scene + 1]).gaussians
            count = len(alone)
            for name, value in alone.tensors().items():
                torch.testing.assert_close(getattr(together, name)[scene, :count], value[0], rtol=1e-3, atol=1e-4)
            assert (together.opacities[scene, count:] == 0).all()


def test_packed_attention_equals_attention_under_a_mask():
    lengths = [5, 0, 3, 1]
    q, k, v = (torch.randn(9, 2, 8, dtype=torch.float64) for _ in range(3))
    owner = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))
    scores = torch.einsum("ihc,jhc->hij", q, k) / 8**0.5
    scores = scores.masked_fill(owner[:, None] != owner[None], float("-inf"))
    expected = torch.einsum("hij,jhc->ihc", scores.softmax(dim=-1), v)
    torch.testing.assert_close(attend_by_sdpa(q, k, v, lengths), expected)


def test_the_order_of_views_does_not_matter():
    """No positions: permuted views give the same Gaussians in another order."""
    views = sphere_views(1, 4)
    model = build(TINY_WITH_ALL)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        straight, permuted = model(views), model(views[:, order])
    for view in range(4):
        mine = straight.patches.views[straight.tokens] == order[view]
        theirs = permuted.patches.views[permuted.tokens] == view
        torch.testing.assert_close(straight.distances[mine], permuted.distances[theirs], rtol=1e-3, atol=1e-4)


def test_every_parameter_learns():
    config = replace(TINY_WITH_ALL, free_gaussians=5)
    model = build(config).train()
    views = sphere_views(2, 3)
    gaussians = model(views).gaussians
    assert gaussians.means.shape[1] == 2 * int((views.alphas > 0).flatten(1).sum(-1).max()) + 5
    rendering = gaussians.render(views.cameras, views.times)
    (rendering.image - views.composite(torch.ones(3))).square().mean().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not silent


def test_activations_of_zeros_are_the_papers():
    parameters = activate(torch.zeros(1, 20))
    assert parameters["scales"][0].tolist() == pytest.approx([0.1002588] * 3)
    assert parameters["time_scales"].item() == pytest.approx(0.1002588)
    assert parameters["opacities"].item() == pytest.approx(0.1192029)
    assert parameters["colors"][0].tolist() == [0.5] * 3
    assert place_on_rays(torch.zeros(1), 0.1, 4.5).item() == pytest.approx(2.3)
    large = activate(torch.full((1, 20), 50.0))
    assert large["scales"].max() == pytest.approx(0.3) and large["time_scales"].item() == 1


def test_residual_starts_are_what_the_pixel_says():
    colors, alphas = torch.tensor([[0.2, 0.4, 0.9]]), torch.tensor([0.5])
    pixel = torch.tensor([0.3]), colors, alphas, torch.tensor([0.02])
    parameters = activate_from_pixels(torch.zeros(1, 20), *pixel, start_scale=0.5, start_duration=0.2)
    torch.testing.assert_close(parameters["scales"], torch.full((1, 3), 0.01))
    assert parameters["time_scales"].item() == pytest.approx(0.2)
    torch.testing.assert_close(parameters["colors"], colors)
    assert parameters["time_means"].item() == pytest.approx(0.3)
    assert parameters["opacities"].item() == pytest.approx(0.5 / (1 + 2.718281828**-1), abs=1e-6)
    torch.testing.assert_close(parameters["left_quaternions"], parameters["right_quaternions"])
    start = place_on_rays(torch.zeros(1), torch.tensor([2.0]), torch.tensor([4.0]), torch.tensor([0.25]))
    assert start.item() == pytest.approx(2.5)


def test_a_pixel_makes_two_gaussians_on_its_ray_alike_but_for_place_colour_and_opacity():
    model, views = build(TINY_WITH_ALL), sphere_views(2, 3)
    with torch.no_grad():
        answer = model(views)
    packed = {name: value[answer.slots] for name, value in answer.gaussians.tensors().items()}
    for name, value in packed.items():
        own = name in ("means", "colors", "opacities")
        assert torch.equal(value[:, 0], value[:, 1]) != own, name
    rays = answer.patches.directions[answer.tokens, answer.pixels][:, None]
    away = packed["means"] - answer.patches.origins[answer.tokens][:, None]
    torch.testing.assert_close((away * rays).sum(-1), answer.distances, rtol=1e-4, atol=1e-4)
    assert (away - answer.distances[..., None] * rays).abs().max() < 1e-5
    assert not (answer.distances[:, 0] == answer.distances[:, 1]).any()


@pytest.mark.parametrize("config", [TINY, TINY_WITH_ALL], ids=["paper", "all"])
def test_times_are_free_or_the_frames(config):
    views = sphere_views(2, 4)
    for free in (True, False):
        model = build(replace(config, free_times=free))
        torch.nn.init.normal_(model.head.weight, std=0.1)
        answer = model(views)
        times = answer.gaussians.time_means[answer.slots]
        frames = answer.patches.times[answer.tokens, None].expand_as(times)
        assert torch.equal(times, frames) != free


@pytest.mark.parametrize("surfaces", [1, 2])
def test_changes_go_to_opacity_sizes_and_duration(surfaces):
    raw = torch.randn(4, 20 + 5 * (surfaces - 1))
    changes = torch.randn(4, 2 + surfaces)
    added = change_raw(raw, changes) - raw
    places = {19: 0, 7: 1, 8: 1, 9: 1, 10: 2, 24: 3}
    for channel in range(raw.shape[1]):
        expected = changes[:, places[channel]] if channel in places else torch.zeros(4)
        torch.testing.assert_close(added[:, channel], expected, rtol=1e-4, atol=1e-5)


def test_a_third_look_is_looked_with_and_changes_little_before_it_is_trained():
    model = build(TINY_WITH_ALL)
    views = sphere_views(2, 6)
    with torch.no_grad():
        answer = model(views)
        look, model.third_look = model.third_look, None
        before = model(views)
        model.third_look = look
        look.to_logits.bias += torch.tensor([0.0, 0.0, 0.0, 0.0, 100.0])
        farther = model(views)
    assert 0 < (answer.distances - before.distances).abs().max() < 0.002
    shifts = farther.distances - before.distances
    torch.testing.assert_close(shifts[:, 0], torch.full_like(shifts[:, 0], 2 * 0.01), rtol=0, atol=1e-4)
    assert (shifts[:, 1] == 0).all()


def pixels_with_rays(views: Views) -> tuple[torch.Tensor, ...]:
    patches = cut_patches(views, 8, skip_empty=True)
    tokens, pixels = (patches.alphas > 0).nonzero(as_tuple=True)
    distances = evidence.sample_distances(patches.spans[tokens, pixels], 24)
    return (
        (patches.scenes * views.shape[1] + patches.views)[tokens],
        patches.origins[tokens],
        patches.directions[tokens, pixels],
        distances,
        patches.colors[tokens, pixels],
    )


@pytest.mark.parametrize("instructions", ["baseline", "avx2", "the best"])
@pytest.mark.parametrize("moving", [False, True], ids=["at rest", "moving"])
def test_evidence_operator_equals_its_reference(monkeypatch, instructions, moving):
    monkeypatch.setenv("LRM4D_CPU_ISA", instructions)
    views = sphere_views(1, 12)  # more than one group of views, most too far in time for the narrowest width
    views = replace(views, alphas=views.alphas * 0.7)
    arguments = pixels_with_rays(views)
    velocities = torch.randn(arguments[1].shape, generator=torch.Generator().manual_seed(1)) if moving else None
    fast = evidence.gather_evidence(views, *arguments, velocities)
    monkeypatch.setattr(evidence, "load_operators", lambda: False)
    slow = evidence.gather_evidence(views, *arguments, velocities)
    # A place on a picture's very border may fall to either side.
    close = torch.isclose(fast, slow, rtol=0, atol=2e-5).all(dim=-1)
    assert close.float().mean() > 0.999
    assert fast.std() > 0.1


def test_evidence_by_triton_equals_the_operator():
    """Run by Triton's interpreter; on CUDA tests/gpu asks the same of the compiled kernel."""
    pytest.importorskip("triton")
    script = """
from dataclasses import replace
import torch
from lrm4d.reconstruction import evidence
from test_reconstruction import pixels_with_rays, sphere_views
views = sphere_views(3, 6)
views = replace(views, alphas=views.alphas * 0.7)
arguments = pixels_with_rays(views)
some = torch.randperm(len(arguments[0]), generator=torch.Generator().manual_seed(0))[:150].sort().values
owners, origins, directions, distances, colors = (x[some] for x in arguments)
velocities = torch.randn(origins.shape, generator=torch.Generator().manual_seed(1))
right = evidence.gather_evidence(views, owners, origins, directions, distances, colors, velocities)
for dtype, tolerance in ((torch.float32, 2e-5), (torch.bfloat16, 4e-3)):
    got = torch.full_like(right, float("nan"), dtype=dtype)
    evidence.gather_evidence_by_triton(views, owners, (origins, directions, velocities, distances, colors), got)
    close = torch.isclose(got.float(), right, rtol=0, atol=tolerance).all(dim=-1)
    assert close.float().mean() > 0.999, close.float().mean()
assert right.std() > 0.1
"""
    tests = Path(__file__).parent
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_evidence_is_the_same_in_any_order_number_type_and_number_of_threads():
    views = sphere_views(1, 6)
    arguments = pixels_with_rays(views)
    whole = evidence.gather_evidence(views, *arguments)
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))
    shuffled = evidence.gather_evidence(views, *(x[order] for x in arguments))
    torch.testing.assert_close(shuffled, whole[order], rtol=0, atol=1e-6)
    rounded = whole.new_empty(whole.shape, dtype=torch.bfloat16)
    threads = torch.get_num_threads()
    for count in (1, 3):
        torch.set_num_threads(count)
        evidence.gather_evidence(views, *arguments, out=rounded.zero_())
        assert (rounded == whole.bfloat16()).all()
        assert (evidence.gather_evidence(views, *arguments) == whole).all()
    torch.set_num_threads(threads)


def test_widths_say_whom_each_weighting_asks():
    """Without weighting all three say the same, as does the widest of them: and the narrowest hears nobody far."""
    views = sphere_views(1, 6)
    arguments = pixels_with_rays(views)
    usual = evidence.gather_evidence(views, *arguments)
    alike = evidence.gather_evidence(views, *arguments, widths=(0.0, 0.0, 0.0)).unflatten(-1, (3, 3))
    assert (alike == alike[..., :1, :]).all() and (alike[..., 0, :] == usual[..., :3]).all()
    alone = evidence.gather_evidence(views, *arguments, widths=(0.01, 0.0, 0.0))
    assert (alone[..., :3] == 0).all() and (alone[..., 5] > 0).any()
    config = replace(TINY_WITH_ALL, evidence_widths=(0.01, 0.01, 0.01))
    with torch.no_grad():
        deaf, usual = build(config)(views), build(TINY_WITH_ALL)(views)
    assert not torch.allclose(deaf.distances, usual.distances)


def test_evidence_follows_what_moves(monkeypatch):
    """Cameras carried along with a moving object see what cameras at rest see of the object at rest."""
    views = sphere_views(1, 6)
    owners, origins, directions, distances, colors = pixels_with_rays(views)
    at_rest = evidence.gather_evidence(views, owners, origins, directions, distances, colors)
    velocity = torch.tensor([0.3, -0.2, 0.1])
    shifts = (2 * views.times[0] - 1)[:, None] * velocity
    poses = views.cameras.camera_to_world.clone()
    poses[0, :, :3, 3] += shifts
    carried = replace(views, cameras=replace(views.cameras, camera_to_world=poses))
    rays = (origins + shifts[owners], directions, distances, colors, velocity.expand_as(origins).contiguous())
    for available in (True, False):
        if not available:
            monkeypatch.setattr(evidence, "load_operators", lambda: False)
        moving = evidence.gather_evidence(carried, owners, *rays)
        assert (moving - at_rest).abs().quantile(0.999) < 1e-3  # but for places on a picture's very border


def test_peaks_are_found_where_the_likeliest_surface_is():
    logits = torch.full((1, 48), -20.0)
    logits[0, 10], logits[0, 11], logits[0, 40] = 5.0, 5.0, 4.9
    assert find_peaks(logits).item() == pytest.approx(11 / 48)  # between its two steps, not drawn to the other surface


def test_evidence_of_one_view_is_nothing():
    views = sphere_views(1, 1)
    assert (evidence.gather_evidence(views, *pixels_with_rays(views)) == 0).all()


def test_evidence_is_strongest_at_the_surface():
    """A sphere coloured by position is seen alike from everywhere, so the true distance must win nearly always."""
    views = sphere_views(1, 16, width=64, height=64)
    owners, origins, directions, distances, colors = pixels_with_rays(views)
    found = evidence.gather_evidence(views, owners, origins, directions, distances, colors)
    assert found.min() >= 0 and found.max() <= 1
    best = torch.gather(distances, 1, found[..., 1].argmax(dim=1, keepdim=True))[:, 0]
    middle = -(origins * directions).sum(-1)
    half = (0.25 - (origins + middle[:, None] * directions).square().sum(-1)).clamp(min=0).sqrt()
    inner = half > 0.2  # a grazing ray has no one distance
    error = (best - (middle - half)).abs()[inner]
    assert error.median() < 0.05
    points = origins[:, None] + directions[:, None] * distances[..., None]
    pixels, _ = project(views.cameras[0, 0], points)
    assert pixels.isfinite().all()


def test_pretrained_round_trip(tmp_path):
    model = build(TINY_WITH_ALL)
    save_pretrained(model, tmp_path / "tiny")
    loaded = load_pretrained(tmp_path / "tiny")
    assert loaded.config == model.config
    for name, value in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value.bfloat16().float())
    with pytest.raises(ValueError, match="no weights called 'nonesuch'"):
        load_pretrained("nonesuch")
    (tmp_path / "tiny" / "config.json").write_text('{"width": 64, "depth": 3}')
    with pytest.raises(ValueError, match="depth"):
        load_pretrained(tmp_path / "tiny")


def test_large_weights_are_shards_that_belong_together(tmp_path, monkeypatch):
    model = build(TINY_WITH_ALL)
    monkeypatch.setattr(pretrained, "SHARD_BYTES", 100_000)
    save_pretrained(model, tmp_path)
    files = pretrained.find_weight_files(tmp_path)
    assert len(files) > 2 and not (tmp_path / "model.safetensors").exists()
    largest = max(p.numel() for p in model.parameters()) * 2
    assert max(file.stat().st_size for file in files) < max(100_000, largest) + 10_000
    for name, value in load_pretrained(tmp_path).state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name].bfloat16().float())
    older = files[0].read_bytes()
    save_pretrained(model, tmp_path)
    files[0].write_bytes(older)  # a saving that was killed after its first shards
    with pytest.raises(ValueError, match="different savings"):
        load_pretrained(tmp_path)
    monkeypatch.undo()
    save_pretrained(model, tmp_path)
    assert pretrained.find_weight_files(tmp_path) == [tmp_path / "model.safetensors"]
    load_pretrained(tmp_path)


def test_bf16_stays_near_float32():
    model = build(TINY_WITH_ALL)
    views = sphere_views(1, 4)
    with torch.no_grad():
        exact = model(views).gaussians
        model.bf16 = True
        rounded = model(views).gaussians
    assert rounded.means.dtype == torch.float32
    # A few rays have two peaks that are nearly as likely, and may take the other.
    assert (exact.means - rounded.means).abs().quantile(0.9) < 0.02
