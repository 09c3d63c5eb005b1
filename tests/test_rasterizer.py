"""What a picture of Gaussians is: closed forms, the reference's gradients, gsplat's projection, edges, errors."""

import json
import math

import pytest
import torch
from rasterizer_scenes import random_scene, random_weights, render_with_gradients, tensors, to_double

from eval import benchmark_rasterizer
from lrm4d.cameras import Cameras
from lrm4d.gaussians3d import Gaussians3D, unpack_symmetric
from lrm4d.rasterizer import choose_backend, cpu, rasterize, reference

BACKENDS = ["reference", "cpu"]
BACKGROUND = torch.tensor([0.1, 0.5, 0.9])


@pytest.fixture(params=BACKENDS)
def backend(request):
    if request.param == "cpu" and not cpu.is_available():
        pytest.skip("no C++ compiler")
    return request.param


def camera_at_origin(size=9, focal=10.0, views=1) -> Cameras:
    """Looks along z; odd sizes have a pixel in the middle."""
    intrinsics = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    return Cameras(torch.eye(4).expand(views, 4, 4), intrinsics.expand(views, 3, 3), size, size)


def on_axis(depths, opacities, colors, variance=0.01) -> Gaussians3D:
    """Round Gaussians on the optical axis."""
    n = len(depths)
    means = torch.tensor([[0.0, 0.0, z] for z in depths]).reshape(n, 3)
    covariances = variance * torch.tensor([1.0, 0, 0, 1, 0, 1]).expand(n, 6)
    return Gaussians3D(means, covariances, torch.tensor(opacities), torch.tensor(colors).reshape(n, 3))


@pytest.mark.parametrize("low_pass", [0.0, 0.3])
def test_one_round_gaussian_has_the_closed_form(backend, low_pass):
    color = torch.tensor([0.9, 0.3, 0.2])
    gaussians = on_axis([2.0], [0.7], [color.tolist()], variance=0.04)
    got = rasterize(gaussians, camera_at_origin(), BACKGROUND, low_pass=low_pass, backend=backend)
    offsets = torch.arange(9) - 4.0
    squares = offsets[:, None].square() + offsets.square()
    variance = 0.04 * (10.0 / 2.0) ** 2 + low_pass  # J on the axis is focal / z
    alpha = 0.7 * torch.exp(-0.5 * squares / variance)
    alpha[alpha < 1 / 255] = 0
    torch.testing.assert_close(got.alpha[0, 0], alpha, atol=1e-6, rtol=0)
    expected = color[:, None, None] * alpha + BACKGROUND[:, None, None] * (1 - alpha)
    torch.testing.assert_close(got.image[0], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(got.depth[0, 0], 2.0 * (alpha > 0), atol=1e-5, rtol=0)


def test_compensation_keeps_the_light_of_a_small_gaussian(backend):
    variance = 0.2 * (2.0 / 10.0) ** 2  # 0.2 pixels squared
    gaussians = on_axis([2.0], [0.5], [[1.0, 1, 1]], variance)
    got = rasterize(gaussians, camera_at_origin(), torch.zeros(3), low_pass=0.3, compensate=True, backend=backend)
    torch.testing.assert_close(got.alpha[0, 0, 4, 4], torch.tensor(0.5 * 0.2 / 0.5), atol=1e-6, rtol=0)


def test_nearer_covers_farther_whatever_their_order(backend):
    red, green = [1.0, 0, 0], [0, 1.0, 0]
    for gaussians in (
        on_axis([2.0, 3.0], [0.6, 0.8], [red, green]),
        on_axis([3.0, 2.0], [0.8, 0.6], [green, red]),
    ):
        got = rasterize(gaussians, camera_at_origin(), torch.tensor([0.0, 0, 1]), backend=backend)
        middle = got.image[0, :, 4, 4]
        torch.testing.assert_close(middle, torch.tensor([0.6, 0.4 * 0.8, 0.4 * 0.2]), atol=1e-6, rtol=0)
        depth = (0.6 * 2 + 0.32 * 3) / 0.92
        torch.testing.assert_close(got.depth[0, 0, 4, 4], torch.tensor(depth), atol=1e-5, rtol=0)


def test_equal_depths_are_drawn_in_their_order(backend):
    gaussians = on_axis([2.0] * 60, [0.3] * 60, [[k / 60, 0, 0] for k in range(60)])
    got = rasterize(gaussians, camera_at_origin(), torch.zeros(3), backend=backend)
    weights = 0.3 * 0.7 ** torch.arange(60)
    last = int((0.7 ** torch.arange(60) >= 1e-4).sum())
    expected = (weights * torch.arange(60) / 60)[:last].sum()
    torch.testing.assert_close(got.image[0, 0, 4, 4], expected, atol=1e-6, rtol=0)


def test_alpha_is_clamped_and_a_finished_pixel_sees_no_more(backend):
    gaussians = on_axis([2.0, 3, 4, 5, 6], [0.95, 0.95, 0.95, 1.0, 0.9], [[1.0, 1, 1]] * 5)
    # Light left before each: 1, 0.05, 0.0025, 1.25e-4 (still drawn, clamped to .99), 1.25e-6 (not drawn).
    camera = camera_at_origin(size=1)
    rendering, gradients = render_with_gradients(
        gaussians, camera, torch.zeros(3), random_weights(camera)[:1] + [torch.zeros(1)] * 2, backend=backend
    )
    torch.testing.assert_close(1 - rendering.alpha.double().item(), 1.25e-6, atol=1.5e-7, rtol=0)
    colors, opacities = gradients[3], gradients[2]
    assert (colors[:4] != 0).all() and (colors[4] == 0).all()
    torch.testing.assert_close(colors[3] / colors[0], torch.full((3,), 1.25e-4 * 0.99 / 0.95), rtol=1e-4, atol=0)
    assert (opacities[:3] != 0).all() and (opacities[3:] == 0).all()  # the clamp passes no gradient


def test_what_cannot_be_seen_costs_nothing_and_gets_no_gradient(backend):
    gaussians, cameras = random_scene(1, 40)
    blank = rasterize(gaussians, cameras, BACKGROUND, backend=backend)
    poses = cameras.camera_to_world[0]
    behind, too_near = (poses[:3, 3] + z * poses[:3, 2] for z in (-1.0, 0.0099))
    means = torch.cat([gaussians.means, torch.stack([behind, too_near, *([torch.zeros(3)] * 7)])])
    extra_covariances = 0.01 * torch.tensor([1.0, 0, 0, 1, 0, 1]).repeat(9, 1)
    extra_opacities = torch.tensor([0.9, 0.9, 0.0, 0.0039, 0.9, 0.9, math.nan, math.inf, 0.9])
    extra_colors = torch.full((9, 3), 0.5)
    means[44, 0] = math.nan
    extra_covariances[5, 2] = math.inf
    extra_colors[8, 1] = math.nan
    more = Gaussians3D(
        means,
        torch.cat([gaussians.covariances, extra_covariances]),
        torch.cat([gaussians.opacities, extra_opacities]),
        torch.cat([gaussians.colors, extra_colors]),
    )
    rendering, gradients = render_with_gradients(more, cameras, BACKGROUND, random_weights(cameras), backend=backend)
    torch.testing.assert_close(rendering.image, blank.image, atol=1e-6, rtol=0)
    for gradient in gradients[:4]:
        assert gradient.isfinite().all() and (gradient[40:] == 0).all() and (gradient[:40] != 0).any()


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 1e38, -1e38])
def test_no_number_crashes(backend, poison):
    gaussians, cameras = random_scene(2, 30)
    for field in range(4):
        poisoned = [x.clone() for x in tensors(gaussians)]
        poisoned[field].view(-1)[::5] = poison
        rendering = rasterize(Gaussians3D(*poisoned), cameras, BACKGROUND, backend=backend)
        assert field == 3 or rendering.image.isfinite().all()


def test_no_gaussians_no_views_no_scenes(backend):
    gaussians, cameras = random_scene(3, 0)
    rendering = rasterize(gaussians, cameras, BACKGROUND, backend=backend)
    torch.testing.assert_close(rendering.image, BACKGROUND[:, None, None].expand(1, 3, 18, 24))
    assert rendering.alpha.eq(0).all() and rendering.depth.eq(0).all()
    gaussians, cameras = random_scene(3, 5)
    assert rasterize(gaussians, cameras[:0], BACKGROUND, backend=backend).image.shape == (0, 3, 18, 24)
    gaussians, cameras = random_scene(3, 5, batch=(0,), views=2)
    assert rasterize(gaussians, cameras, BACKGROUND, backend=backend).depth.shape == (0, 2, 1, 18, 24)


def test_a_batch_is_a_loop(backend):
    gaussians, cameras = random_scene(4, 25, batch=(2, 3), views=2)
    together = rasterize(gaussians, cameras, BACKGROUND, backend=backend)
    assert together.image.shape == (2, 3, 2, 3, 18, 24)
    for scene in range(2):
        for time in range(3):
            one = Gaussians3D(*(x[scene, time] for x in tensors(gaussians)))
            alone = rasterize(one, cameras[scene, time], BACKGROUND, backend=backend)
            torch.testing.assert_close(together.image[scene, time], alone.image, rtol=0, atol=1e-6)
            torch.testing.assert_close(together.depth[scene, time], alone.depth, rtol=0, atol=1e-5)


@pytest.mark.parametrize("compensate", [False, True])
def test_reference_gradients_are_those_of_differences(compensate):
    gaussians, cameras = random_scene(5, 4, views=1, width=5, height=4, scale=0.2)
    cameras = cameras.to(torch.float64)

    def planes(means, covariances, opacities, colors, background):
        scene = Gaussians3D(means, covariances, opacities, colors)
        r = rasterize(scene, cameras, background, 0.2, compensate, backend="reference")
        return r.image, r.alpha, r.depth

    inputs = [x.double().requires_grad_() for x in (*tensors(gaussians), BACKGROUND)]
    assert torch.autograd.gradcheck(planes, inputs)


def test_projection_is_that_of_gsplat():
    theirs = pytest.importorskip("gsplat.cuda._torch_impl")
    gaussians, cameras = random_scene(6, 400, views=5, scale=0.2)
    gaussians, cameras = to_double(gaussians), cameras.to(torch.float64)
    wide = Gaussians3D(gaussians.means * 3, *tensors(gaussians)[1:])  # also far outside the pictures
    view, k = cameras.world_to_camera, cameras.intrinsics
    ours = reference.project_gaussians(
        wide.means.expand(5, -1, -1), wide.covariances.expand(5, -1, -1), view, k, cameras.width, cameras.height, 0.3
    )
    _, means, depths, conics, compensations = theirs._fully_fused_projection(
        wide.means,
        unpack_symmetric(wide.covariances),
        view,
        k,
        cameras.width,
        cameras.height,
        eps2d=0.3,
        calc_compensations=True,
    )
    seen = depths > 0.01
    assert 0.3 < seen.double().mean() < 1
    inverses = torch.linalg.inv(ours.covariances)
    torch.testing.assert_close(ours.means[seen], means[seen])
    torch.testing.assert_close(ours.depths, depths)
    torch.testing.assert_close(
        torch.stack([inverses[..., 0, 0], inverses[..., 0, 1], inverses[..., 1, 1]], -1), conics
    )
    torch.testing.assert_close(ours.compensations, compensations, atol=1e-9, rtol=1e-6)


def test_errors_say_what_to_do():
    gaussians, cameras = random_scene(7, 3)
    with pytest.raises(ValueError, match="backend 'fast' is unknown"):
        rasterize(gaussians, cameras, BACKGROUND, backend="fast")
    with pytest.raises(ValueError, match="views"):
        rasterize(gaussians, cameras[0], BACKGROUND)
    with pytest.raises(ValueError, match="low_pass"):
        rasterize(gaussians, cameras, BACKGROUND, low_pass=-0.1)
    with pytest.raises(ValueError, match="got tensors on cpu"):
        rasterize(gaussians, cameras, BACKGROUND, backend="cuda")


def test_float64_goes_to_the_reference_and_half_is_drawn_in_float32():
    gaussians, cameras = random_scene(8, 10)
    assert choose_backend(to_double(gaussians)) == "reference"
    exact = rasterize(to_double(gaussians), cameras, BACKGROUND)
    assert exact.image.dtype == torch.float64
    half = Gaussians3D(*(x.bfloat16() for x in tensors(gaussians)))
    rendering = rasterize(half, cameras, BACKGROUND)
    again = rasterize(Gaussians3D(*(x.float() for x in tensors(half))), cameras, BACKGROUND)
    assert rendering.image.dtype == torch.float32 and torch.equal(rendering.image, again.image)


def test_the_benchmark_times_every_backend(monkeypatch, capsys):
    small = ["--gaussians", "50", "--reference-gaussians", "20", "--size", "8", "--repeats", "2", "--scenes", "2"]
    monkeypatch.setattr("sys.argv", ["benchmark", *small, "--threads", "1", "--json"])
    before = torch.get_num_threads()
    try:
        benchmark_rasterizer.main()
    finally:
        torch.set_num_threads(before)
    timings = json.loads(capsys.readouterr().out)
    assert {"reference"} <= {t["backend"] for t in timings}
    assert all(0 < t["low"] <= t["median"] <= t["high"] for t in timings)
