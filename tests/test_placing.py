from dataclasses import replace

import pytest
import torch

from lrm4d.cameras import Cameras, look_at, project
from lrm4d.generation.geometry import Geometry, static_cameras
from lrm4d.generation.placing import cameras_along, place, place_cameras
from lrm4d.generation.warping import warp
from lrm4d.trajectories import parse_path

PIVOT = torch.tensor([3.0, 1.0, -2.0])


def make_geometry(aim: torch.Tensor = PIVOT) -> Geometry:
    """A plane-like scene of random depths, from somewhere in a world of another scale; the camera moves a little."""
    generator = torch.Generator().manual_seed(0)
    origins = torch.tensor([[20.0, -9.0, 4.0], [20.5, -9.0, 4.0]])
    poses = look_at(origins, aim.expand(2, 3))
    distance = float((PIVOT - origins[0]).norm())
    depths = distance * (0.9 + 0.2 * torch.rand(2, 1, 24, 32, generator=generator))
    return Geometry(depths, Cameras(poses, static_cameras(2, 32, 24, 44.0).intrinsics, 32, 24), depths > 0)


def test_placed_the_first_camera_stands_upright_before_the_pivot():
    placed = place(make_geometry(), PIVOT)
    assert torch.allclose(placed.cameras.origins[0], torch.tensor([0.0, -2.7, 0.0]), atol=1e-5)
    assert torch.allclose(placed.cameras.camera_to_world[0, :3, 2], torch.tensor([0.0, 1.0, 0.0]), atol=1e-6)
    assert torch.allclose(placed.cameras.camera_to_world[0, :3, 1], torch.tensor([0.0, 0.0, -1.0]), atol=1e-6)


def test_placing_changes_no_picture():
    geometry = make_geometry()
    placed = place(geometry, PIVOT)
    video = torch.rand(2, 3, 24, 32)
    swapped = torch.tensor([1, 0])
    before = warp(video, geometry, geometry.cameras[swapped])
    after = warp(video, placed, placed.cameras[swapped])
    same = (before.visibility == after.visibility).float().mean()
    assert same > 0.99 and (before.images - after.images).abs().mean() < 1e-3


def test_a_path_at_rest_is_the_first_camera():
    placed = place(make_geometry(PIVOT + torch.tensor([1.0, 2.0, 1.0])), PIVOT)
    cameras = cameras_along(parse_path("static"), placed, 2)
    video = torch.rand(1, 3, 24, 32).expand(2, 3, 24, 32)
    still = replace(placed, cameras=placed.cameras[torch.zeros(2, dtype=torch.long)])
    assert torch.equal(warp(video, still, cameras).images, video)


def test_turning_keeps_the_pivot_where_it_is_in_the_picture():
    placed = place(make_geometry(PIVOT + torch.tensor([1.0, 2.0, 1.0])), PIVOT)
    middle = place(make_geometry(), PIVOT)
    for text in ("arc:by=60", "orbit"):
        cameras = cameras_along(parse_path(text), middle, 5)
        pixels, _ = project(cameras, torch.zeros(5, 3))
        assert torch.allclose(pixels, torch.tensor([16.0, 12.0]).expand(5, 2), atol=1e-3)
        aside = cameras_along(parse_path(text), placed, 5)
        assert torch.allclose(aside.camera_to_world[0], placed.cameras.camera_to_world[0], atol=1e-5)


def test_zooming_is_relative_to_the_lens():
    placed = place(make_geometry(), PIVOT)
    cameras = cameras_along(parse_path("static:fov=20"), placed, 2)
    assert torch.allclose(cameras.intrinsics[:, 0, 0], static_cameras(2, 32, 24, 20.0).intrinsics[:, 0, 0], rtol=1e-4)


def test_a_pivot_behind_the_camera_is_an_error():
    with pytest.raises(ValueError, match="lies at depth"):
        place(make_geometry(), torch.tensor([40.0, -20.0, 8.0]))


def test_other_cameras_move_with_the_world():
    geometry = make_geometry()
    placed = place(geometry, PIVOT)
    moved = place_cameras(geometry.cameras, geometry, placed)
    torch.testing.assert_close(moved.camera_to_world, placed.cameras.camera_to_world, atol=1e-5, rtol=1e-5)
    aside = Cameras(look_at(torch.tensor([[18.0, -3.0, 9.0]]), PIVOT[None]), geometry.cameras.intrinsics[:1], 32, 24)
    pixels, depth = project(place_cameras(aside, geometry, placed), torch.zeros(1, 3))
    expected, before = project(aside, PIVOT[None])
    torch.testing.assert_close(pixels, expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(depth / before, torch.full((1,), 2.7) / (PIVOT - geometry.cameras.origins[0]).norm())
