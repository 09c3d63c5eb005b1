from itertools import pairwise

import pytest
import torch

from lrm4d.cameras import project
from lrm4d.trajectories import BANKS, Rig, draw_cameras, overlook, parse_bank, parse_path, read_path

START = Rig(azimuth=25.0, elevation=10.0, distance=3.2, fov=40.0)
TEXTS = ["fan", "fan:views=3,span=90,rise=5", "ring", "ring:views=5,distance=1.5", "rings:views=4,rings=2", "kubric16"]
TEXTS += ["dome", "dome:views=9,lowest=-30"]


def cameras_of(text, width=64, height=48):
    bank = parse_bank(text)
    return bank.cameras(bank.natural_count, width, height, START)


@pytest.mark.parametrize("text", TEXTS)
def test_all_look_at_the_pivot_upright_from_their_distance(text):
    cameras = cameras_of(text)
    pixels, depth = project(cameras, torch.zeros(3).expand(len(cameras), 3))
    distance = START.distance * parse_bank(text).distance
    torch.testing.assert_close(pixels, torch.tensor([[32.0, 24.0]]).expand(len(cameras), 2), atol=1e-3, rtol=0)
    torch.testing.assert_close(depth, torch.full_like(depth, distance))
    torch.testing.assert_close(cameras.camera_to_world[:, 2, 0], torch.zeros(len(cameras)), atol=1e-6, rtol=0)
    assert (cameras.camera_to_world[:, 2, 1] <= 1e-6).all(), "down is down"


@pytest.mark.parametrize("text", TEXTS)
def test_the_text_form_is_read_back_and_is_a_path_too(text):
    bank = parse_bank(text)
    assert parse_bank(str(bank)) == bank == read_path(text)
    assert str(BANKS[bank.name]()) == bank.name


def angles(text):
    """Azimuth of the places, from the start's, and elevation, by plain trigonometry."""
    x, y, z = cameras_of(text).origins.unbind(-1)
    azimuth = torch.rad2deg(torch.atan2(x, -y)) - START.azimuth
    return azimuth % 360, torch.rad2deg(torch.asin(z / cameras_of(text).origins.norm(dim=-1)))


def assert_angles(got, expected):
    apart = (got - torch.tensor(expected) + 180) % 360 - 180
    assert apart.abs().max() < 1e-3, (got, expected)


def test_where_they_stand():
    azimuth, elevation = angles("fan:views=4,span=60")
    assert_angles(azimuth, [-30.0, -15.0, 15.0, 30.0])
    assert_angles(elevation, [START.elevation] * 4)
    assert_angles(angles("ring:views=3,rise=7")[0], [90.0, 180.0, 270.0])
    assert_angles(angles("ring:views=3,rise=7")[1], [START.elevation + 7] * 3)
    azimuth, elevation = angles("rings:views=2,rings=3,lowest=-20,highest=40")
    assert_angles(azimuth, [0.0, 180.0, 90.0, 270.0, 0.0, 180.0])
    assert_angles(elevation, [-20.0, -20.0, 10.0, 10.0, 40.0, 40.0])
    azimuth, elevation = angles("kubric16")
    assert_angles(azimuth, [0.0, 90.0, 180.0, 270.0, *(15.0 + 30 * k for k in range(12))])
    assert_angles(elevation, [45.0] * 4 + [5.0] * 12)


def test_a_dome_is_even_by_area():
    _, elevation = angles("dome:views=40")
    heights = torch.sin(torch.deg2rad(elevation))
    torch.testing.assert_close(heights.diff(), torch.full((39,), 1 / 40), atol=1e-4, rtol=0)
    places = cameras_of("dome:views=40").origins
    nearest = (torch.cdist(places, places) + 9 * torch.eye(40)).amin(1)
    assert nearest.min() > 0.5 * nearest.max(), "no two stand together"


def test_another_count_flies_through_them():
    bank = parse_bank("ring:views=3")
    few, many = bank.cameras(3, 8, 8, START), bank.cameras(9, 8, 8, START)
    torch.testing.assert_close(few.camera_to_world, many.camera_to_world[::4])
    steps = [(a - b).norm() for a, b in pairwise(many.origins)]
    assert max(steps) - min(steps) < 1e-4
    assert bank.cameras(1, 8, 8, START).camera_to_world.equal(few.camera_to_world[:1])
    assert torch.equal(bank.times(3, "0:1"), torch.tensor([0.0, 0.5, 1.0]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("circle", "there are fan, ring"),
        ("ring:rise", "expected a number"),
        ("ring:height=3", "ring knows"),
        ("ring:rise=1,rise=2", "each once"),
        ("ring:views=0", "whole number from 1"),
        ("ring:views=2.5", "whole number from 1"),
        ("fan:distance=0", "factor above 0"),
        ("dome:lowest=90", "below 90"),
        ("fan:span=nan", "finite"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_bank(text)


def test_banks_are_no_moves():
    with pytest.raises(ValueError, match="no move 'ring'"):
        parse_path("orbit + ring")


def test_every_camera_of_a_bank_is_drawn():
    cameras = cameras_of("kubric16")
    viewpoint = overlook(cameras, 320, 240)
    picture = draw_cameras(cameras, viewpoint)
    one_less = draw_cameras(cameras[:15], viewpoint)
    places, _ = project(viewpoint, cameras.origins)
    for x, y in places.round().long().tolist():
        assert picture[:, y - 2 : y + 3, x - 2 : x + 3].min() < 0.5
    x, y = places[15].round().long().tolist()
    assert (picture - one_less)[:, y - 2 : y + 3, x - 2 : x + 3].abs().max() > 0.3
