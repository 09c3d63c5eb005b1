import math
from dataclasses import replace

import pytest
import torch

from lrm4d.cameras import Cameras, look_at, project
from lrm4d.generation.geometry import static_cameras
from lrm4d.generation.route import Route, spline, straight, turns
from lrm4d.trajectories import Rig, cameras_around, parse_bank

HOME = Rig(elevation=15.0, distance=3.0, fov=50.0)


def views_of(text: str, count: int = 2) -> Cameras:
    """The home camera and a bank's, at rest: [time, view]."""
    bank = parse_bank(text)
    home = cameras_around(torch.zeros(1), torch.full((1,), 15.0), torch.full((1,), 3.0), 50.0, 32, 24)
    others = bank.cameras(bank.natural_count, 32, 24, HOME)
    poses = torch.cat([home.camera_to_world, others.camera_to_world])
    intrinsics = torch.cat([home.intrinsics, others.intrinsics])
    return Cameras(poses, intrinsics, 32, 24).reshape(1, -1).expand(count, len(poses))


def hop_sizes(route: Route) -> torch.Tensor:
    stations = range(1, len(route.origins))
    return torch.stack([turns(route.cameras[:, s], route.cameras[:, route.origins[s]]) for s in stations])


@pytest.mark.parametrize("text", ["ring:views=5", "fan:span=140,rise=20,distance=2", "kubric16", "dome:views=7"])
@pytest.mark.parametrize("max_hop", [12.0, 31.0])
def test_no_hop_is_larger_and_both_ends_are_exact(text, max_hop):
    views = views_of(text)
    route = spline(views, max_hop)
    assert hop_sizes(route).max() <= max_hop * 1.001
    assert route.cameras.camera_to_world[:, : views.shape[1]].equal(views.camera_to_world)
    assert all(0 in walk_back(route, station) for station in range(len(route.origins)))
    pixels, depth = project(route.cameras, torch.zeros(3).expand(*route.cameras.shape, 3))
    middle = torch.tensor([16.0, 12.0]).expand(pixels.shape)
    torch.testing.assert_close(pixels, middle, atol=2e-3, rtol=0)
    assert depth.min() > 2.9 and depth.max() < 6.1


def walk_back(route: Route, station: int) -> list[int]:
    walk = [station]
    while walk[-1] != 0:
        walk.append(route.origins[walk[-1]])
        assert len(walk) <= len(route.origins), "a circle"
    return walk


def test_stops_are_the_fewest_and_even():
    views = views_of("fan:views=1,span=120")  # 60 degrees to the right, on the same elevation
    route = spline(views, 21.0)
    assert len(route.origins) == 2 + 2
    assert walk_back(route, 1) == [1, 3, 2, 0]
    cosine = math.cos(math.radians(15)) ** 2 * math.cos(math.radians(20)) + math.sin(math.radians(15)) ** 2
    assert hop_sizes(route).max() == pytest.approx(math.degrees(math.acos(cosine)), abs=1e-3)
    expected = cameras_around(torch.tensor([20.0, 40.0]), torch.full((2,), 15.0), torch.full((2,), 3.0), 50.0, 32, 24)
    torch.testing.assert_close(route.cameras[0, 2:].camera_to_world, expected.camera_to_world, atol=1e-5, rtol=0)
    assert len(spline(views, 90.0).origins) == 2


def test_a_ring_is_walked_along_and_not_begun_anew_for_each_camera():
    route = spline(views_of("ring:views=7"), 50.0)
    assert len(route.origins) == 8, "no stops: the cameras are 45 degrees apart at most"
    assert max(route.hops(station) for station in range(8)) == 4
    assert route.generations() == [[1, 7], [2, 6], [3, 5], [4]]


def test_cameras_that_move_and_look_aside_lean_evenly():
    views = views_of("fan:views=1,span=80", count=3)
    aside = (
        look_at(torch.zeros(3), torch.tensor([0.2, 1.0, 0.1]))[:3, :3]
        @ look_at(torch.zeros(3), torch.tensor([0.0, 1.0, 0.0]))[:3, :3].mT
    )
    poses = views.camera_to_world.clone()
    poses[:, :, :3, :3] = poses[:, :, :3, :3] @ aside
    poses[1, :, :3, 3] *= 1.2
    route = spline(replace(views, camera_to_world=poses), 10.0)
    upright = spline(views, 10.0)
    rest = upright.cameras.camera_to_world[:, :, :3, :3] @ aside
    torch.testing.assert_close(route.cameras.camera_to_world[:, :, :3, :3], rest, atol=1e-4, rtol=0)
    distances = route.cameras.origins.norm(dim=-1)
    torch.testing.assert_close(distances[1], 1.2 * distances[0])
    torch.testing.assert_close(distances[2], distances[0])


def test_over_the_top_and_to_the_other_side():
    home = cameras_around(torch.zeros(3), torch.tensor([0.0, 90, 0]), torch.full((3,), 2.0), 50.0, 16, 16)
    poses = home.camera_to_world.clone()
    poses[2] = cameras_around(torch.tensor(180.0), torch.tensor(0.0), torch.tensor(2.0), 50.0, 16, 16).camera_to_world
    route = spline(replace(home, camera_to_world=poses).reshape(1, 3), 25.0)
    assert route.cameras.camera_to_world.isfinite().all()
    assert hop_sizes(route).max() <= 25.03


def test_straight_is_one_hop_from_the_video():
    views = views_of("ring:views=3")
    route = straight(views)
    assert route.origins == (0, 0, 0, 0) and route.generations() == [[1, 2, 3]]
    assert route.cameras is views


def test_what_is_refused():
    views = views_of("ring:views=3")
    with pytest.raises(ValueError, match="above 0"):
        spline(views, 0.0)
    with pytest.raises(ValueError, match="pivot itself"):
        spline(static_cameras(2, 8, 8).reshape(1, 2), 10.0)
