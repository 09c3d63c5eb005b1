import math

import pytest
import torch

from lrm4d.cameras import project
from lrm4d.trajectories import cameras_around, parse_times, parse_trajectory


@pytest.mark.parametrize("text", ["orbit", "arc:start=-90,stop=30", "dolly:azimuth=70", "static:elevation=-30"])
def test_every_path_looks_at_the_origin_upright(text):
    cameras = parse_trajectory(text, 7, 64, 48)
    assert cameras.shape == (7,) and (cameras.width, cameras.height) == (64, 48)
    pixels, depth = project(cameras, torch.zeros(7, 3))
    torch.testing.assert_close(pixels, torch.tensor([32.0, 24.0]).expand(7, 2), atol=1e-3, rtol=0)
    torch.testing.assert_close(depth, cameras.origins.norm(dim=-1))
    above, _ = project(cameras, torch.tensor([0, 0, 0.3]).expand(7, 3))
    assert bool((above[:, 1] < pixels[:, 1]).all())
    torch.testing.assert_close(above[:, 0], pixels[:, 0], atol=1e-3, rtol=0)


def test_azimuths_are_front_left_back_right():
    cameras = parse_trajectory("orbit:elevation=0,distance=2", 4, 8, 8)
    expected = torch.tensor([[0, -2, 0], [2, 0, 0], [0, 2, 0], [-2, 0, 0]]).float()
    torch.testing.assert_close(cameras.origins, expected, atol=1e-5, rtol=0)


def test_an_orbit_loops_without_a_doubled_frame():
    cameras = parse_trajectory("orbit:turns=2", 12, 8, 8)
    steps = (cameras.origins.roll(-1, 0) - cameras.origins).norm(dim=-1)
    torch.testing.assert_close(steps, steps[:1].expand(12), atol=1e-5, rtol=0)


def test_arc_and_dolly_reach_both_ends():
    arc = parse_trajectory("arc:start=10,stop=50,elevation=0", 5, 8, 8).origins
    angles = torch.rad2deg(torch.atan2(arc[:, 0], -arc[:, 1]))
    torch.testing.assert_close(angles, torch.linspace(10, 50, 5), atol=1e-3, rtol=0)
    dolly = parse_trajectory("dolly:start=4,stop=2", 3, 8, 8).origins.norm(dim=-1)
    torch.testing.assert_close(dolly, torch.tensor([4.0, 3.0, 2.0]))


def test_field_of_view_is_horizontal():
    cameras = parse_trajectory("static:fov=60,elevation=0,distance=3", 1, 100, 50)
    edge = torch.tensor([[3 * math.tan(math.radians(30)), 0, 0]])
    torch.testing.assert_close(project(cameras, edge)[0], torch.tensor([[100.0, 25.0]]), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "text, message",
    [
        ("spin", "there are orbit, arc, dolly, static"),
        ("orbit:speed=2", "orbit knows turns=1, azimuth=0"),
        ("orbit:elevation=high", "cannot read 'elevation=high'"),
        ("orbit:elevation=90", "straight above"),
    ],
)
def test_unreadable_paths_say_what_can_be_read(text, message):
    with pytest.raises(ValueError, match=message):
        parse_trajectory(text, 3, 8, 8)


def test_cameras_around_takes_any_batch_shape():
    assert cameras_around(torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2, 3), 50.0, 8, 8).shape == (2, 3)


def test_times():
    torch.testing.assert_close(parse_times("0:1", 3), torch.tensor([0, 0.5, 1]))
    torch.testing.assert_close(parse_times("0.25", 2), torch.tensor([0.25, 0.25]))
    torch.testing.assert_close(parse_times("0:1:0", 5), torch.tensor([0, 0.5, 1, 0.5, 0]))
    assert parse_times("0.2:0.8", 1).tolist() == pytest.approx([0.2])
    for text in ("0:2", "a", "", "nan", "0:"):
        with pytest.raises(ValueError, match="expected numbers from 0 to 1"):
            parse_times(text, 3)
