import math

import pytest
import torch

from lrm4d.cameras import project
from lrm4d.trajectories import (
    MOVES,
    Rig,
    arc,
    bullet,
    cameras_around,
    dolly,
    dolly_zoom,
    orbit,
    pan,
    parse_path,
    parse_times,
    pedestal,
    roll,
    spiral,
    static,
    tilt,
    truck,
    zoom,
)
from lrm4d.trajectories.easing import EASINGS
from lrm4d.trajectories.state import START

UP, ORIGIN = torch.tensor([[0.0, 0, 0.3]]), torch.zeros(1, 3)


def stands(path, count=7, start=START):
    return path.cameras(count, 64, 48, start)


def axes(cameras):
    """right, down and forward in the world."""
    return cameras.camera_to_world[:, :3, :3].unbind(-1)


def close(one, other, atol=1e-5):
    torch.testing.assert_close(one, other, atol=atol, rtol=0)


def same_cameras(one, other, atol=1e-5):
    close(one.camera_to_world, other.camera_to_world, atol)
    close(one.intrinsics, other.intrinsics, 64 * atol)


# Stands


@pytest.mark.parametrize(
    "text", ["orbit", "arc:azimuth=-90,to=30", "dolly:azimuth=70", "static:elevation=-30", "spiral", "dolly_zoom"]
)
def test_paths_around_look_at_the_origin_upright(text):
    cameras = stands(parse_path(text))
    assert cameras.shape == (7,) and (cameras.width, cameras.height) == (64, 48)
    pixels, depth = project(cameras, ORIGIN.expand(7, 3))
    close(pixels, torch.tensor([32.0, 24.0]).expand(7, 2), 1e-3)
    close(depth, cameras.origins.norm(dim=-1))
    above, _ = project(cameras, UP.expand(7, 3))
    assert bool((above[:, 1] < pixels[:, 1]).all())
    close(above[:, 0], pixels[:, 0], 1e-3)


def test_azimuths_are_front_left_back_right():
    cameras = orbit(elevation=0, distance=2).cameras(4, 8, 8)
    close(cameras.origins, torch.tensor([[0, -2, 0], [2, 0, 0], [0, 2, 0], [-2, 0, 0]]).float())


def test_straight_above_is_no_special_place():
    cameras = stands(static(azimuth=30, elevation=90))
    close(cameras.origins, torch.tensor([[0, 0, 2.7]]).expand(7, 3))
    right, _, forward = axes(cameras)
    close(forward, torch.tensor([[0.0, 0, -1]]).expand(7, 3))
    close(right[0], torch.tensor([math.cos(math.pi / 6), 0.5, 0]))


def test_every_stand_is_rigid_and_right_handed():
    path = spiral() + roll() + pan(by=40) + tilt() + truck() + pedestal()
    rotations = stands(path, 20).camera_to_world[:, :3, :3]
    close(rotations.mT @ rotations, torch.eye(3).expand(20, 3, 3), 1e-6)
    close(torch.linalg.det(rotations), torch.ones(20), 1e-6)


def test_a_rig_is_the_inverse_of_its_vector():
    rig = Rig(10, 20, 3, 0.1, -0.2, 5, 6, 7, 33)
    close(Rig.from_vector(rig.to_vector()).to_vector(), rig.to_vector(), 1e-12)


def test_field_of_view_is_horizontal():
    cameras = static(fov=60, elevation=0, distance=3).cameras(1, 100, 50)
    edge = torch.tensor([[3 * math.tan(math.radians(30)), 0, 0]])
    close(project(cameras, edge)[0], torch.tensor([[100.0, 25.0]]), 1e-3)


def test_cameras_around_takes_any_batch_shape_and_is_a_static_path():
    cameras = cameras_around(torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2, 3), 50.0, 64, 48)
    assert cameras.shape == (2, 3)
    same_cameras(cameras[0], stands(static(elevation=0, distance=1, fov=50), 3))


# Moves


def test_an_orbit_alone_loops_without_a_doubled_frame():
    cameras = orbit(turns=2).cameras(12, 8, 8)
    steps = (cameras.origins.roll(-1, 0) - cameras.origins).norm(dim=-1)
    close(steps, steps[:1].expand(12))
    assert stands(orbit(turns=0.5)).origins[-1, 1] > 2.5, "half a turn ends behind"


def test_arc_reaches_both_ends_and_rises():
    places = stands(arc(azimuth=10, to=50, elevation=0), 5).origins
    close(torch.rad2deg(torch.atan2(places[:, 0], -places[:, 1])), torch.linspace(10, 50, 5), 1e-3)
    places = stands(arc(by=-20, rise=30, elevation=10), 4).origins
    close(torch.rad2deg(torch.asin(places[:, 2] / 2.7)), torch.tensor([10.0, 20, 30, 40]), 1e-3)


def test_dolly_goes_by_units_or_to_a_distance_by_equal_factors():
    distances = stands(dolly(distance=4, to=1), 3).origins.norm(dim=-1)
    close(distances, torch.tensor([4.0, 2.0, 1.0]))
    assert stands(dolly(by=-0.5, distance=2), 2).origins.norm(dim=-1).tolist() == pytest.approx([2, 2.5])


@pytest.mark.parametrize("move", [dolly_zoom(to=1.2, ease="in"), dolly_zoom(by=-2), dolly_zoom(fov=20, by=1)])
def test_dolly_zoom_keeps_the_projected_size(move):
    cameras = stands(move, 9, Rig(azimuth=40))
    sideways, _ = project(cameras, 0.5 * axes(cameras)[0])
    centre, _ = project(cameras, ORIGIN.expand(9, 3))
    sizes = (sideways - centre).norm(dim=-1)
    close(sizes, sizes[:1].expand(9), 1e-3)
    assert cameras.origins.norm(dim=-1).diff().abs().min() > 0.01, "and it moves"


def test_zoom_is_of_the_lens_alone():
    cameras = stands(zoom(by=2), 3)
    focal = cameras.intrinsics[:, 0, 0]
    close(focal, focal[0] * torch.tensor([1, 2**0.5, 2]), 1e-3)
    close(cameras.camera_to_world, cameras.camera_to_world[:1].expand(3, 4, 4))
    wide = stands(zoom(to=90), 2).intrinsics[-1]
    close(wide[0, 0], torch.tensor(32.0))


def test_truck_goes_along_the_pictures_x_axis():
    cameras = stands(truck(by=0.6, azimuth=35), 4)
    right, _, _ = axes(cameras)
    close(cameras.origins - cameras.origins[:1], torch.linspace(0, 0.6, 4)[:, None] * right)
    close(cameras.camera_to_world[:, :3, :3], cameras.camera_to_world[:1, :3, :3].expand(4, 3, 3))


def test_pedestal_goes_straight_up():
    cameras = stands(pedestal(by=-0.4), 3)
    close(cameras.origins - cameras.origins[:1], torch.tensor([[0, 0, 0], [0, 0, -0.2], [0, 0, -0.4]]))
    close(axes(cameras)[2], axes(cameras)[2][:1].expand(3, 3))


@pytest.mark.parametrize("move", [pan(), tilt(), roll()])
def test_turning_leaves_the_eye(move):
    cameras = stands(move, 3, Rig(azimuth=20))
    close(cameras.origins, cameras.origins[:1].expand(3, 3))


def test_pan_turns_right_tilt_up_roll_clockwise():
    level = Rig(elevation=0)
    first, last = stands(pan(by=20), 2, level)[0], stands(pan(by=20), 2, level)[1]
    right, down, forward = first.camera_to_world[:3, :3].unbind(-1)
    angle = math.radians(20)
    close(last.camera_to_world[:3, 2], math.cos(angle) * forward + math.sin(angle) * right)
    close(stands(tilt(by=20), 2, level).camera_to_world[1, :3, 2], math.cos(angle) * forward - math.sin(angle) * down)
    close(stands(roll(by=20), 2, level).camera_to_world[1, :3, 0], math.cos(angle) * right + math.sin(angle) * down)
    # Clockwise: what was above the middle is now seen to its left.
    pixels, _ = project(stands(roll(by=90), 2, level)[1:], UP)
    assert pixels[0, 0] < 31


def test_without_roll_the_horizon_is_level():
    right, _, _ = axes(stands(pan(by=50) + tilt(by=30) + orbit(turns=0.3), 9))
    close(right[:, 2], torch.zeros(9))


def test_spiral_is_an_orbit_that_climbs_and_closes_in():
    same_cameras(stands(spiral(turns=2, rise=30, to=2)), stands(orbit(turns=2) + arc(by=0, rise=30) + dolly(to=2)))


def test_static_stays():
    cameras = stands(static())
    same_cameras(cameras, cameras[:1].expand(7))


@pytest.mark.parametrize("name", MOVES)
def test_every_move_begins_where_the_camera_is(name):
    start = Rig(11, 12, 2.5, 0.1, 0.2, 3, 4, 5, 44)
    same_cameras(stands(MOVES[name](), 5, start)[:1], stands(static(), 1, start))


# Easing


@pytest.mark.parametrize("name", EASINGS)
def test_easing_is_exact_at_its_ends_and_never_turns_back(name):
    u = torch.linspace(0, 1, 101, dtype=torch.float64)
    eased = EASINGS[name](u)
    assert eased[0] == 0 and eased[-1] == 1 and bool((eased.diff() > 0).all())
    rests = {"linear": (False, False), "in": (True, False), "out": (False, True), "in-out": (True, True)}[name]
    assert (eased[1] < 2e-3, 1 - eased[-2] < 2e-3) == rests


# In sequence and together


def test_a_sequence_is_continuous_at_its_joints():
    path = orbit(turns=0.4) >> (dolly(to=1.5) + pan()) >> zoom() >> truck() >> spiral() >> roll() >> dolly_zoom()
    cameras = stands(path, 7 * 200 + 1)
    assert (cameras.camera_to_world.diff(dim=0).abs().amax()) < 0.1
    assert (cameras.intrinsics.diff(dim=0).abs().amax()) < 1
    rig = Rig()
    for joint, part in enumerate(path.parts, 1):
        rig = part.end(rig)
        same_cameras(cameras[joint * 200 : joint * 200 + 1], stands(static(), 1, rig))


def test_parts_take_their_shares_and_places():
    path = static(share=3) >> static(azimuth=90, share=1)
    azimuths = stands(path, 9).origins
    assert [bool(x > 1) for x in azimuths[:, 0]] == [False] * 6 + [True] * 3
    assert (static(share=3) >> (orbit() >> dolly())).length == 5


def test_together_commutes_and_adds():
    start = Rig(azimuth=15)
    moves = [orbit(turns=0.3), dolly(to=2, ease="in"), truck(), pan(), zoom(), pedestal(fov=30), roll()]
    forwards, backwards = moves[0], moves[-1]
    for move in moves[1:]:
        forwards = forwards + move
    for move in moves[-2::-1]:
        backwards = backwards + move
    same_cameras(stands(forwards, 6, start), stands(backwards, 6, start))
    same_cameras(stands(orbit(turns=0.3) + static(), 6, start), stands(orbit(turns=0.3), 6, start))


def test_a_sequence_can_be_together_with_a_move():
    path = (dolly(to=2) >> dolly(to=2.7)) + orbit(turns=0.5)
    cameras = stands(path, 5)
    close(cameras.origins.norm(dim=-1)[::2], torch.tensor([2.7, 2.0, 2.7]))
    azimuths = torch.rad2deg(torch.atan2(cameras.origins[:, 0], -cameras.origins[:, 1]))
    close(azimuths[:4], torch.tensor([0, 45.0, 90, 135]), 1e-3)


def test_both_ways_of_nesting_are_the_same_path():
    assert (orbit() >> dolly()) >> zoom() == orbit() >> (dolly() >> zoom())
    assert (orbit() + dolly()) + zoom() == orbit() + (dolly() + zoom())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: orbit(azimuth=1) + dolly(azimuth=2), "azimuth is set twice"),
        (lambda: orbit(time=0.5) + dolly(time=0.5), "say a time"),
        (lambda: orbit(ease="slow"), "ease is 'slow'; expected one of linear, in, out, in-out"),
        (lambda: orbit(time=1.5), "expected numbers from 0 to 1"),
        (lambda: orbit(share=0), "share is 0"),
        (lambda: orbit(turns=math.inf), "turns is inf"),
        (lambda: orbit(distance=-1), "distance -1"),
        (lambda: orbit(fov=180), "fov 180"),
        (lambda: zoom(by=0), "factor above 0"),
        (lambda: stands(dolly(by=3)), "through the object"),
        (lambda: stands(dolly(to=0)), "to is 0"),
        (lambda: spiral(to=-2), "to is -2"),
        (lambda: stands(zoom(by=1e-300) >> zoom(by=1e-300) >> pan()), "focal length of e"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Times


def test_times():
    close(parse_times("0:1", 3), torch.tensor([0, 0.5, 1]))
    close(parse_times("0.25", 2), torch.tensor([0.25, 0.25]))
    close(parse_times("0:1:0", 5), torch.tensor([0, 0.5, 1, 0.5, 0]))
    assert parse_times("0.2:0.8", 1).tolist() == pytest.approx([0.2])
    for text in ("0:2", "a", "", "nan", "0:"):
        with pytest.raises(ValueError, match="expected numbers from 0 to 1"):
            parse_times(text, 3)


def test_a_path_that_says_no_time_has_the_callers():
    close(orbit().times(5), torch.linspace(0, 1, 5))
    close((orbit() >> dolly(share=3)).times(5, "0:1:0"), parse_times("0:1:0", 5))


def test_a_part_that_says_a_time_has_its_own():
    close(
        (orbit(time="0:0.5") >> dolly(time=0.5) >> arc(time=(0.5, 1))).times(7),
        torch.tensor([0, 0.25] + [0.5] * 3 + [0.75, 1]),
    )


def test_bullet_time_stops_the_clock_and_the_others_share_it():
    times = (orbit() >> bullet() >> dolly()).times(301)
    close(times[:101], torch.linspace(0, 0.5, 101), 1e-3)
    assert bool((times[100:200] == 0.5).all())
    close(times[200:], torch.linspace(0.5, 1, 101), 1e-3)
    assert bullet().times(3, "0.3:1").tolist() == pytest.approx([0.3] * 3)
    assert (orbit(time="1:0.2") >> bullet()).times(9)[-4:].tolist() == pytest.approx([0.2] * 4)
    same_cameras(stands(bullet(turns=0.5)), stands(orbit(turns=0.5)))


def test_a_time_said_by_one_of_several_moves_is_theirs():
    close((orbit() + dolly(time="1:0")).times(3), torch.tensor([1, 0.5, 0]))
