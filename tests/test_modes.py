import json
from dataclasses import replace
from math import exp

import pytest
import torch
from moving_scene import make_gaussians

from lrm4d.cameras import Cameras, intrinsics_from_fov, look_at, project
from lrm4d.cli import run
from lrm4d.export.color_map import DARKEST, LIGHTEST, OKLAB_TO_LMS, apply_color_map
from lrm4d.export.modes import MODES, ModeRenderer, color_velocities, weighted_quantile
from lrm4d.gaussians4d import Gaussians4D
from lrm4d.scenes.pictures import load_picture
from lrm4d.trajectories import cameras_around


def one_gaussian(position=(0.0, 0.0, 0.0), time_mean=0.0, opacity=0.9) -> Gaussians4D:
    """Large, still, alive at all times."""
    return Gaussians4D(
        means=torch.tensor([position]),
        time_means=torch.tensor([time_mean]),
        scales=torch.full((1, 3), 0.4),
        time_scales=torch.full((1,), 50.0),
        left_quaternions=torch.tensor([[1.0, 0, 0, 0]]),
        right_quaternions=torch.tensor([[1.0, 0, 0, 0]]),
        opacities=torch.full((1,), opacity),
        colors=torch.tensor([[0.2, 0.4, 0.6]]),
    )


def front_camera(distance=3.0, size=31) -> Cameras:
    """Before the world's origin, which its middle pixel's centre looks at."""
    pose = look_at(torch.tensor([[0.0, -distance, 0.0]]), torch.zeros(1, 3))
    return Cameras(pose, intrinsics_from_fov(0.8, size, size)[None], size, size)


def cameras_in_a_ring(count: int, width: int, height: int) -> Cameras:
    angles = 360 * torch.arange(count) / count
    return cameras_around(angles, torch.full((count,), 20.0), torch.full((count,), 2.7), 49.1, width, height)


def middle(image: torch.Tensor) -> torch.Tensor:
    return image[0, :, 15, 15]


def test_colour_is_the_scenes_own_rendering():
    gaussians, cameras, times = make_gaussians(), cameras_in_a_ring(3, 24, 16), torch.tensor([0.0, 0.4, 1.0])
    background = torch.tensor([0.1, 0.5, 0.9])
    drawn = ModeRenderer(gaussians).render(cameras, times, "colour", background)
    expected = gaussians.render(cameras, times, background)
    for name in ("image", "alpha", "depth"):
        torch.testing.assert_close(getattr(drawn, name), getattr(expected, name))


@pytest.mark.parametrize("mode", MODES)
def test_alpha_and_depth_are_the_rasterizers_in_every_mode(mode):
    gaussians, cameras, times = make_gaussians(), cameras_in_a_ring(2, 24, 16), torch.tensor([0.2, 0.8])
    drawn, expected = ModeRenderer(gaussians).render(cameras, times, mode), gaussians.render(cameras, times)
    torch.testing.assert_close(drawn.alpha, expected.alpha)
    torch.testing.assert_close(drawn.depth, expected.depth)
    if mode != "alpha":
        empty = (expected.alpha == 0).expand_as(drawn.image)
        assert empty.any() and (drawn.image[empty] == 1).all()
    else:
        torch.testing.assert_close(drawn.image, expected.alpha.expand(2, 3, 16, 24))


@pytest.mark.parametrize("position", [(0.0, -0.5, 0.0), (0.0, 0.0, 0.0), (0.0, 0.7, 0.0)])
def test_depth_is_the_gaussians_camera_z_between_the_stated_ends(position):
    renderer, camera, background = ModeRenderer(one_gaussian(position)), front_camera(), torch.tensor([0.0, 1.0, 0.0])
    near, far = renderer.depth_span(camera)
    radius = abs(position[1])
    assert (near, far) == pytest.approx((3 - radius, 3 + radius))
    drawn = renderer.render(camera, torch.tensor([0.3]), "depth", background, span=(2.0, 4.0))
    depth = project(camera[0], torch.tensor(position))[1]
    assert depth.item() == pytest.approx(3 + position[1])
    expected = 0.9 * apply_color_map((4 - depth) / 2) + 0.1 * background
    torch.testing.assert_close(middle(drawn.image), expected, atol=2e-3, rtol=0)


def test_velocity_is_the_distance_between_two_moments():
    """The colours of one moving Gaussian, from where it is at two times a moment apart."""
    angle = torch.tensor([0.01])
    gaussians = replace(
        one_gaussian(opacity=1.0),
        left_quaternions=torch.stack([angle.cos(), angle.sin(), 0 * angle, 0 * angle], dim=-1),
        time_scales=torch.full((1,), 3.0),
    )
    renderer = ModeRenderer(gaussians)
    early, late = (renderer.slice_at(torch.tensor([time])).means[0, 0] for time in (0.45, 0.55))
    velocity = (late - early) / 0.1
    assert renderer.fastest == pytest.approx(velocity.norm().item(), rel=1e-4) and renderer.fastest > 0.01
    expected = 0.5 + 0.5 * velocity / velocity.norm()
    torch.testing.assert_close(color_velocities(velocity, renderer.fastest), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        renderer.slice_at(torch.tensor([0.2]), "velocity").colors[0, 0], expected, atol=1e-4, rtol=0
    )
    still = ModeRenderer(one_gaussian()).render(front_camera(), torch.tensor([0.5]), "velocity", torch.zeros(3))
    torch.testing.assert_close(middle(still.image), torch.full((3,), 0.45), atol=1e-3, rtol=0)


@pytest.mark.parametrize("time_mean", [-1.0, -0.5, 0.8])
def test_birth_is_the_time_mean(time_mean):
    drawn = ModeRenderer(one_gaussian(time_mean=time_mean)).render(
        front_camera(), torch.tensor([0.5]), "birth", torch.zeros(3)
    )
    expected = 0.9 * exp(-0.5 * (time_mean / 50) ** 2) * apply_color_map(torch.tensor((time_mean + 1) / 2))
    torch.testing.assert_close(middle(drawn.image), expected, atol=1e-3, rtol=0)


def test_a_path_has_one_depth_span():
    """A frame of a path that comes nearer has the colours that the whole path's span gives it."""
    renderer, times = ModeRenderer(make_gaussians()), torch.tensor([0.1, 0.9])
    cameras = Cameras(
        *(torch.cat([getattr(front_camera(d), n) for d in (2.0, 4.0)]) for n in ("camera_to_world", "intrinsics")),
        31,
        31,
    )
    told = []
    frames = list(renderer.render_frames(cameras, times, "depth", progress=lambda *args: told.append(args)))
    together = renderer.render(cameras, times, "depth")
    torch.testing.assert_close(torch.cat([frame.image for frame in frames]), together.image)
    alone = renderer.render(cameras[:1], times[:1], "depth")
    assert (alone.image[0] - together.image[0]).abs().max() > 0.05
    assert told == [("render", 1, 2), ("render", 2, 2)]


def test_count_shown():
    gaussians = replace(make_gaussians(50), time_scales=torch.full((50,), 0.01), time_means=torch.linspace(-1, 1, 50))
    gaussians = replace(gaussians, right_quaternions=gaussians.left_quaternions)
    renderer = ModeRenderer(gaussians)
    assert 1 <= renderer.count_shown(0.5) <= 3 and ModeRenderer(make_gaussians(50)).count_shown(0.5) == 50


def test_unknown_mode_names_the_modes():
    with pytest.raises(ValueError, match="colour, alpha, depth, velocity, birth"):
        ModeRenderer(make_gaussians()).render(cameras_in_a_ring(1, 8, 8), torch.zeros(1), "normals")


def test_legends_say_the_range():
    renderer = ModeRenderer(one_gaussian((0.0, 0.5, 0.0)))
    legends = {mode: renderer.legend(mode, front_camera()) for mode in MODES}
    assert "2.50" in legends["depth"] and "3.50" in legends["depth"] and len(set(legends.values())) == len(MODES)


def test_the_color_maps_lightness_rises_evenly_within_what_a_screen_can_show():
    colors = apply_color_map(torch.linspace(0, 1, 101).double())
    linear = torch.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    # sRGB to LMS: the published inverse of the matrix that the map uses
    matrix = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    cones = (linear @ torch.tensor(matrix).double().T) ** (1 / 3)
    lightness = cones @ torch.linalg.inv(torch.tensor(OKLAB_TO_LMS).double())[0]
    torch.testing.assert_close(lightness, torch.linspace(DARKEST, LIGHTEST, 101).double(), atol=1e-4, rtol=0)
    assert colors.min() > 0 and colors.max() < 1  # nothing was clamped
    torch.testing.assert_close(apply_color_map(torch.tensor([-3.0, 7.0])), apply_color_map(torch.tensor([0.0, 1.0])))


def test_weighted_quantile():
    values = torch.tensor([3.0, 1.0, 2.0, 100.0])
    assert weighted_quantile(values, torch.tensor([1.0, 1.0, 1.0, 0.001])) == 3.0
    assert weighted_quantile(values, torch.ones(4)) == 100.0
    assert weighted_quantile(values, torch.ones(4), 0.5) == 2.0
    assert weighted_quantile(torch.zeros(0), torch.zeros(0)) == 0.0


def test_the_command_renders_a_mode_and_says_its_range(tmp_path, capsys):
    gaussians = make_gaussians()
    gaussians.save(tmp_path / "scene.safetensors")
    command = ["render", str(tmp_path / "scene.safetensors"), "--frames", "2", "--size", "16", "--background", "black"]
    assert run([*command, "--mode", "alpha", "-o", str(tmp_path / "alpha")]) == 0
    assert run([*command, "--mode", "depth", "-o", str(tmp_path / "depth"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out.split("\n", 2)[2])
    assert report["mode"] == "depth" and report["legend"].startswith("camera z: light ")
    alpha, depth = (load_picture(tmp_path / mode / "frame_1.png")[:3] for mode in ("alpha", "depth"))
    assert (alpha[0] == alpha[1]).all() and alpha.max() > 0.9
    assert (depth[:, alpha[0] == 0] == 0).all() and depth.max() > 0.3
    assert run([*command, "--mode", "shade", "-o", str(tmp_path / "x")]) == 2
    assert "colour, alpha, depth" in capsys.readouterr().err
