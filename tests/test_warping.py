from dataclasses import replace

import pytest
import torch

from data_tools.render import render
from data_tools.world import sample_scenes
from lrm4d.cameras import Cameras, look_at, project
from lrm4d.generation import splatting
from lrm4d.generation.geometry import Geometry, static_cameras
from lrm4d.generation.warping import draw_jitter, relate, reproject_twice, warp
from lrm4d.operators import load_operators
from lrm4d.trajectories import cameras_around

NEAR, FAR, HALF = 2.0, 4.0, 0.5
"""A square of half-width HALF at depth NEAR before a plane at depth FAR, seen along y from the origin."""
RED, GREEN = torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0])

pytestmark = pytest.mark.usefixtures("one_thread")


def hits_square(cameras: Cameras, grow: float = 0.0) -> torch.Tensor:
    """Whether each pixel centre's ray meets the square (grown), for cameras of any pose before it."""
    origins, directions = cameras.rays()
    at = origins + directions * ((NEAR - origins[..., 1:2]) / directions[..., 1:2])
    return (at[..., 0].abs() < HALF + grow) & (at[..., 2].abs() < HALF + grow)


def square_before_plane(count: int = 1, size: int = 64) -> tuple[torch.Tensor, Geometry]:
    """Pictures (a red square before green) and the exact geometry, from a camera at rest."""
    cameras = static_cameras(count, size, size, 60.0)
    front = hits_square(cameras)[:, None]
    depths = torch.where(front, NEAR, FAR)
    images = torch.where(front, RED[:, None, None], GREEN[:, None, None])
    return images, Geometry(depths, cameras, torch.ones_like(front))


def cameras_at(origins: list, target: tuple = (0.0, 3.0, 0.0), size: int = 64) -> Cameras:
    """Cameras as those of square_before_plane, elsewhere."""
    origins = torch.tensor(origins)
    poses = look_at(origins, torch.tensor(target).expand_as(origins))
    return replace(static_cameras(len(origins), size, size, 60.0), camera_to_world=poses)


def sees_plane(cameras: Cameras, points: torch.Tensor) -> torch.Tensor:
    """Whether points of the plane are in the picture and not behind the square, in closed form."""
    origins = cameras.origins[:, None, None]
    crossing = origins + (points - origins) * ((NEAR - origins[..., 1:2]) / (points - origins)[..., 1:2])
    hidden = (crossing[..., 0].abs() < HALF) & (crossing[..., 2].abs() < HALF)
    in_camera = (points - origins) @ cameras.camera_to_world[:, None, :3, :3]
    pixels = (in_camera / in_camera[..., 2:]) @ cameras.intrinsics[:, None].mT
    inside = (pixels[..., :2] >= 0).all(-1) & (pixels[..., 0] < cameras.width) & (pixels[..., 1] < cameras.height)
    return ~hidden & inside


def plane_points(cameras: Cameras) -> torch.Tensor:
    """Where each pixel centre's ray meets the plane."""
    origins, directions = cameras.rays()
    return origins + directions * ((FAR - origins[..., 1:2]) / directions[..., 1:2])


def near_border(mask: torch.Tensor, pixels: int = 1) -> torch.Tensor:
    """Pixels within so many of the border between True and False."""
    soft = mask.float()[:, None]
    size = 2 * pixels + 1
    grown = torch.nn.functional.max_pool2d(soft, size, 1, pixels)
    shrunk = -torch.nn.functional.max_pool2d(-soft, size, 1, pixels)
    return (grown != shrunk)[:, 0]


def test_the_kernel_is_the_reference():
    if not load_operators():
        pytest.skip("no compiler")
    generator = torch.Generator().manual_seed(0)
    images, geometry = square_before_plane(2, 20)
    images = torch.rand(images.shape, generator=generator)
    depths = geometry.depths[:, 0] * (1 + 0.04 * torch.rand(2, 20, 20, generator=generator))
    depths[:, 3, 4] = 0
    origins = torch.randn(2, 3, 3, generator=generator) * 0.4
    target = Cameras(
        look_at(origins, torch.tensor([0.1, 3.0, 0.05]).expand_as(origins)),
        static_cameras(6, 24, 22, 50.0).intrinsics.reshape(2, 3, 3, 3),
        24,
        22,
    )
    transforms = [x.float() for x in relate(geometry.cameras.reshape(2, 1), target)]
    inputs = [x.requires_grad_() for x in (images, depths, *transforms)]
    image, depth, nearest = splatting.splat(*inputs, 24, 22)
    slow = [x.detach().double().requires_grad_() for x in inputs]
    expected = splatting.splat_reference(*slow[:2], slow[2].flatten(0, 1), slow[3].flatten(0, 1), 24, 22)
    assert torch.equal(nearest.flatten(0, 1), expected[2]) and (nearest < 0).any()
    assert torch.allclose(image.flatten(0, 1).double(), expected[0], atol=1e-4)
    assert torch.allclose(depth.flatten(0, 1).double(), expected[1], atol=1e-4)
    weights = torch.randn(image.shape, generator=generator), torch.randn(depth.shape, generator=generator)
    loss = (image * weights[0]).sum() + (depth * weights[1]).sum()
    slow_loss = sum((e * w.flatten(0, 1).double()).sum() for e, w in zip(expected[:2], weights, strict=True))
    pairs = zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(slow_loss, slow), strict=True)
    for got, wanted in pairs:
        assert torch.allclose(got.double(), wanted, rtol=1e-3, atol=1e-3 * wanted.abs().max().item())


def test_one_view_or_many_in_one_call():
    images, geometry = square_before_plane(2)
    cameras = cameras_at([[0.3, 0.0, 0.1], [-0.4, 0.2, 0.0]])
    both = warp(images, geometry, cameras[None].expand(2, 2))
    assert both.images.shape == (2, 2, 3, 64, 64) and both.visibility.shape == (2, 2, 1, 64, 64)
    for view in range(2):
        alone = warp(images, geometry, cameras[view].reshape(1).expand(2))
        assert torch.equal(both.images[:, view], alone.images)
        assert torch.equal(both.visibility[:, view], alone.visibility)


@pytest.mark.parametrize("origin", [[0.5, 0.0, 0.0], [-0.3, 0.2, 0.4], [0.1, 0.8, 0.3], [0.2, -0.8, -0.3]])
def test_visibility_and_colors_are_the_closed_form(origin):
    images, geometry = square_before_plane(size=96)
    cameras = cameras_at([origin], size=96)
    done = warp(images, geometry, cameras)
    front = hits_square(cameras)
    seen = torch.where(front, True, sees_plane(geometry.cameras, plane_points(cameras)))
    clear = ~near_border(seen) & ~near_border(front)
    assert torch.equal(done.visibility[:, 0][clear], seen[clear])
    assert (~seen & clear).sum() > 20, "a disocclusion is in the picture"
    expected = torch.where(front[..., None], RED, GREEN)
    got = done.images.movedim(1, -1)
    assert torch.equal(got[clear & seen], expected[clear & seen]), "no color bleeds farther than a pixel"
    assert bool((done.images[~done.visibility.expand_as(done.images)] == 0).all())


def test_edges_show_no_mixed_colors():
    images, geometry = square_before_plane()
    done = warp(images, geometry, cameras_at([[0.37, 0.0, 0.21]]))
    seen = done.images.movedim(1, -1)[done.visibility[:, 0]]
    assert torch.equal(seen.sum(-1), torch.ones(len(seen)))
    assert bool(((seen == RED) | (seen == GREEN)).all(-1).all())


def test_a_surface_seen_twice_as_large_has_no_cracks_and_is_interpolated():
    geometry = replace(square_before_plane(size=128)[1], depths=torch.full((1, 1, 128, 128), FAR))
    texture = lambda points: 0.5 + 0.4 * torch.sin(4 * points[..., [0, 2, 0]] + torch.tensor([0.0, 1, 2]))  # noqa: E731
    images = texture(geometry.points()).movedim(-1, 1)
    close = cameras_at([[0.1, 2.0, -0.05]], (0.2, 4.0, 0.1), 128)
    done = warp(images, geometry, close)
    assert done.visibility.all()
    error = done.images - texture(plane_points(close)).movedim(-1, 1)
    assert error.abs().max() < 0.02
    assert (
        done.depths[:, 0] - ((plane_points(close) - close.origins) @ close.camera_to_world[0, :3, 2])
    ).abs().max() < 0.01


def test_rolled_cameras_leave_no_cracks_either():
    images, geometry = square_before_plane()
    spin = torch.eye(4)
    angle = torch.tensor(0.6)
    spin[:2, :2] = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    rolled = replace(geometry.cameras, camera_to_world=geometry.cameras.camera_to_world @ spin)
    centre = warp(images, geometry, rolled).visibility[..., 16:48, 16:48]
    assert centre.all()


def test_what_is_not_valid_is_not_warped():
    images, geometry = square_before_plane()
    only_square = replace(geometry, valid=geometry.depths < 3)
    done = warp(images, only_square, geometry.cameras)
    assert torch.equal(done.visibility, only_square.valid)


def test_gradients_are_differences_of_a_smooth_scene():
    geometry = replace(square_before_plane(size=48)[1], depths=torch.full((1, 1, 48, 48), FAR))
    wave = torch.sin(3 * geometry.points()[..., 0])[:, None].expand(1, 3, 48, 48)
    other = cameras_at([[0.4, 0.3, 0.1]], size=48)
    weight = torch.cos(torch.arange(48) / 5.0)

    def loss(depth: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        poses = other.camera_to_world + torch.nn.functional.pad(shift[None, :, None], (3, 0, 0, 1))
        there = replace(geometry, depths=geometry.depths + depth)
        images = warp(wave, there, replace(other, camera_to_world=poses)).images
        return (images[..., 8:40, 8:40] * weight[8:40]).sum() / 100

    depth, shift = torch.zeros((), requires_grad=True), torch.zeros(3, requires_grad=True)
    by_depth, by_shift = torch.autograd.grad(loss(depth, shift), (depth, shift))
    step = 0.02
    with torch.no_grad():
        along = torch.tensor([1.0, 0, 0]) * step
        numeric = [
            (loss(torch.tensor(step), shift) - loss(torch.tensor(-step), shift)) / (2 * step),
            (loss(depth, along) - loss(depth, -along)) / (2 * step),
        ]
    assert torch.allclose(torch.stack([by_depth, by_shift[0]]), torch.stack(numeric), rtol=0.05)


def test_the_own_cameras_without_jitter_give_the_video_back_exactly():
    generator = torch.Generator().manual_seed(3)
    video = torch.rand(4, 3, 40, 56, generator=generator)
    poses = look_at(torch.randn(4, 3, generator=generator), torch.tensor([0.3, 8.0, 0.0]).expand(4, 3))
    cameras = replace(static_cameras(4, 56, 40, 47.0), camera_to_world=poses)
    depths = 1 + 5 * torch.rand(4, 1, 40, 56, generator=generator)
    geometry = Geometry(depths, cameras, torch.ones_like(depths, dtype=torch.bool))
    again = reproject_twice(video, geometry, cameras)
    assert torch.equal(again.images, video)
    assert again.visibility.all()
    assert torch.allclose(again.depths, depths, rtol=1e-5)


def test_a_large_picture_comes_back_exactly_too():
    video = torch.rand(1, 3, 4, 4096)
    depths = 1 + 100 * torch.rand(1, 1, 4, 4096)
    cameras = static_cameras(1, 4096, 4, 71.0)
    again = reproject_twice(video, Geometry(depths, cameras, depths > 0), cameras)
    assert torch.equal(again.images, video) and again.visibility.all()


@pytest.mark.parametrize("origin", [[0.6, 0.0, 0.0], [-0.3, 0.1, 0.5]])
def test_holes_after_two_warps_are_what_the_other_camera_does_not_see(origin):
    images, geometry = square_before_plane(size=96)
    cameras = cameras_at([origin], size=96)
    again = reproject_twice(images, geometry, cameras)
    front = hits_square(geometry.cameras)
    seen = front | sees_plane(cameras, plane_points(geometry.cameras))
    clear = ~near_border(seen, 2) & ~near_border(front, 2)
    assert (~seen & clear).sum() > 30
    assert (again.visibility[:, 0] == seen)[clear].float().mean() > 0.995
    assert (again.images - images).abs().amax(1)[clear & seen & again.visibility[:, 0]].max() < 1e-5


def test_jitter_moves_the_way_back():
    images, geometry = square_before_plane(2)
    cameras = cameras_at([[0.3, 0.0, 0.1], [-0.4, 0.2, 0.0]])
    jitter = draw_jitter(2, 1.0, 0.05, torch.Generator().manual_seed(0))
    assert torch.allclose(jitter[:, :3, :3] @ jitter[:, :3, :3].mT, torch.eye(3).expand(2, 3, 3), atol=1e-6)
    rough = reproject_twice(images, geometry, cameras, jitter)
    moved = replace(cameras, camera_to_world=cameras.camera_to_world @ jitter)
    there = warp(images, geometry, cameras)
    expected = warp(there.images, Geometry(there.depths, moved, there.visibility), geometry.cameras)
    assert torch.equal(rough.images, expected.images)
    assert not torch.equal(rough.images, reproject_twice(images, geometry, cameras).images)
    still = draw_jitter(3, 0.0, 0.0, torch.Generator())
    assert torch.equal(still, torch.eye(4).expand(3, 4, 4))


def test_jitter_has_the_deviations_that_it_was_asked_for():
    jitter = draw_jitter(4000, 2.0, 0.3, torch.Generator().manual_seed(0))
    cosines = (jitter[:, :3, :3].diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2
    angles = torch.rad2deg(torch.arccos(cosines.clamp(-1, 1)))
    assert angles.square().mean().sqrt() == pytest.approx(2.0 * 3**0.5, rel=0.05)
    assert jitter[:, :3, 3].std(0) == pytest.approx([0.3] * 3, rel=0.05)


def test_what_does_not_fit_is_an_error():
    images, geometry = square_before_plane(2)
    with pytest.raises(ValueError, match=r"Geometry\.resize"):
        warp(images[..., :32], geometry, geometry.cameras)
    with pytest.raises(ValueError, match=r"expected \[2\]"):
        warp(images, geometry, cameras_at([[0.0, 0.0, 0.0]]))


def test_the_procedural_worlds_other_views_are_what_the_warp_shows():
    size, count = 128, 4
    azimuths = torch.tensor([0.0, 20.0]).expand(count, 2)
    cameras = cameras_around(azimuths, torch.full((count, 2), 20.0), torch.full((count, 2), 2.7), 49.1, size, size)
    made = render(sample_scenes(list(range(count))), cameras, torch.full((count, 2), 0.5))
    images = made.views.composite(torch.ones(3))
    geometry = Geometry(made.depths[:, 0], cameras[:, 0], made.hits[:, 0])
    done = warp(images[:, 0], geometry, cameras[:, 1])
    points = Geometry(made.depths[:, 1], cameras[:, 1], made.hits[:, 1]).points()
    pixels, depth = project(cameras[:, 0].reshape(count, 1, 1), points)
    first = torch.nn.functional.grid_sample(made.depths[:, 0], pixels / size * 2 - 1, "nearest", align_corners=False)
    hits = made.hits[:, 1]
    seen = hits & ((depth[:, None] - first).abs() < 0.02 * first)
    assert (hits & ~seen).sum() > 300, "there are disocclusions"
    assert (done.visibility == seen)[hits].float().mean() > 0.95
    both = done.visibility & seen
    assert (done.depths - made.depths[:, 1])[both].abs().median() < 0.001
    error = (done.images - images[:, 1]).square().mean(1, keepdim=True)[both].mean()
    assert -10 * error.log10() > 27
    again = reproject_twice(images[:, 0], geometry, cameras[:, 1])
    assert bool((again.visibility <= torch.nn.functional.max_pool2d(made.hits[:, 0].float(), 3, 1, 1).bool()).all())
    error = (again.images - images[:, 0]).square().mean(1, keepdim=True)[again.visibility & made.hits[:, 0]].mean()
    assert -10 * error.log10() > 27
