import math
from dataclasses import replace

import pytest
import torch

from lrm4d.cameras import project
from lrm4d.generation.geometry import Geometry, otsu_threshold, static_cameras


def make_step(near: float = 2.0, far: float = 4.0, size: int = 16) -> Geometry:
    """The left half near, the right half far, two frames."""
    depths = torch.full((2, 1, size, size), far)
    depths[..., : size // 2] = near
    return Geometry(depths, static_cameras(2, size, size, 60.0), torch.ones_like(depths, dtype=torch.bool))


def test_points_project_back_to_their_pixels_and_depths():
    geometry = make_step()
    pixels, depth = project(geometry.cameras.reshape(-1, 1, 1), geometry.points())
    assert torch.allclose(depth, geometry.depths[:, 0], atol=1e-5)
    assert torch.allclose(pixels[:, 3, 5], torch.tensor([5.5, 3.5]).expand(2, 2), atol=1e-4)


def test_a_static_camera_is_upright_and_looks_along_y():
    cameras = static_cameras(3, 40, 20, 90.0)
    assert torch.equal(cameras.camera_to_world[0, :3, :3].T, torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]))
    assert torch.allclose(cameras.intrinsics[:, 0, 0], torch.tensor(20.0))


def test_edges_are_the_pixels_on_both_sides_of_a_jump_and_of_nothing_else():
    edges = make_step().edges()
    assert edges[..., 7:9].all() and edges.sum() == 2 * 16 * 2
    assert not make_step(4.0, 4.1).edges().any()
    assert make_step(4.0, 4.1).edges(0.02).any()
    kept = make_step().without_edges()
    assert torch.equal(kept.valid, ~edges)


def test_the_border_to_what_is_not_valid_is_an_edge_and_the_pictures_is_none():
    geometry = make_step(4.0, 4.0)
    left = replace(geometry, valid=torch.arange(16).expand(2, 1, 16, 16) < 8)
    assert left.edges()[..., 7].all() and left.edges().sum() == 2 * 16


def test_resizing_keeps_depths_and_field_of_view():
    geometry = make_step()
    small = geometry.resize(8, 4)
    assert set(small.depths.unique().tolist()) == {2.0, 4.0}
    assert small.depths.shape == (2, 1, 4, 8) and (small.cameras.width, small.cameras.height) == (8, 4)
    corner, _ = project(small.cameras[0], geometry.points()[0, 0, 0])
    assert torch.allclose(corner, torch.tensor([0.25, 0.125]), atol=1e-4)


def test_foreground_and_pivot_find_the_near_half():
    geometry = make_step()
    assert torch.equal(geometry.foreground(), geometry.depths < 3)
    pivot = geometry.pivot()
    assert pivot[1] == 2.0, "the static camera looks along y"
    assert pivot[0] < 0, "the near half is on the left"
    assert torch.equal(geometry.pivot(geometry.depths > 3)[1], torch.tensor(4.0))
    assert torch.equal(geometry.median_depths(geometry.depths > 3), torch.tensor([4.0, 4.0]))


def test_otsu_parts_two_heaps():
    values = torch.cat([torch.linspace(0, 1, 50), torch.linspace(8, 10, 10)])
    assert 1 <= otsu_threshold(values) <= 8


def test_recentred_the_pivot_is_the_origin_and_pictures_stay():
    geometry = make_step()
    pivot = geometry.pivot()
    moved = geometry.recentre(pivot, 0.5)
    assert torch.allclose(moved.points(), (geometry.points() - pivot) * 0.5, atol=1e-5)
    assert torch.allclose(moved.pivot(), torch.zeros(3), atol=1e-6)


def test_what_does_not_fit_is_an_error():
    geometry = make_step()
    with pytest.raises(ValueError, match="a camera a frame"):
        replace(geometry, cameras=static_cameras(3, 16, 16))
    nothing = replace(geometry, valid=torch.zeros_like(geometry.valid))
    with pytest.raises(ValueError, match="no pixel's depth is valid"):
        nothing.foreground()
    assert all(math.isnan(x) for x in nothing.median_depths())
