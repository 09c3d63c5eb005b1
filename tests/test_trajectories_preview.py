import pytest
import torch

from lrm4d.cameras import project
from lrm4d.trajectories import draw_path, overlook, parse_path
from lrm4d.trajectories.preview import _color_of, _flight

PATHS = [
    "orbit",
    "static",
    "dolly:distance=30,to=2",
    "truck:by=20",
    "spiral:rise=120",
    "pedestal:by=-4",
    "static:fov=2",
]


def drawn(text, size=(320, 240), **options):
    path = parse_path(text)
    cameras, times = path.cameras(60, 64, 48), path.times(60)
    viewpoint = overlook(cameras, *size)
    return cameras, viewpoint, draw_path(cameras, times, viewpoint, **options)


def differs_from_white(picture, place, reach=2):
    x, y = (round(value) for value in place.tolist())
    return bool((picture[:, y - reach : y + reach + 1, x - reach : x + reach + 1] < 0.9).any())


@pytest.mark.parametrize("text", PATHS)
@pytest.mark.parametrize("size", [(320, 240), (150, 300)])
def test_the_view_has_every_camera_and_the_object_in_it(text, size):
    cameras = parse_path(text).cameras(30, 64, 48)
    viewpoint = overlook(cameras, *size)
    points = torch.cat([cameras.origins, torch.eye(3), -torch.eye(3)])
    pixels, depth = project(viewpoint, points)
    inside = (pixels >= 0) & (pixels <= torch.tensor(size))
    assert bool(inside.all()) and bool((depth > 0).all())
    reach = (pixels / torch.tensor(size) * 2 - 1).abs().max()
    assert reach > 0.4, "and it is not far away"


@pytest.mark.parametrize("text", PATHS)
def test_the_path_is_where_its_cameras_are(text):
    cameras, viewpoint, picture = drawn(text)
    assert picture.shape == (3, 240, 320) and picture.min() >= 0 and picture.max() <= 1
    pixels, _ = project(viewpoint, cameras.origins)
    assert all(differs_from_white(picture, place) for place in pixels)
    assert (picture > 0.95).all(0).float().mean() > 0.6, "and nearly all else is empty"


def test_the_colour_of_the_line_is_its_time():
    cameras, viewpoint, picture = drawn("orbit:turns=0.5,elevation=0; bullet:turns=0.4", (640, 480))
    pixels, _ = project(viewpoint, cameras.origins)
    for index in (4, 12):
        x, y = (round(value) for value in pixels[index].tolist())
        patch = picture[:, y - 2 : y + 3, x - 2 : x + 3].flatten(1).T * 255
        wanted = torch.tensor(_color_of(float(parse_path("orbit").times(31)[index]))).float()
        assert (patch - wanted).abs().sum(-1).min() < 60


def test_colours_of_time_are_told_apart():
    colors = torch.tensor([_color_of(time / 10) for time in range(11)]).float()
    assert torch.cdist(colors, colors)[~torch.eye(11, dtype=torch.bool)].min() > 15
    assert _color_of(-1.0) == _color_of(0.0) and _color_of(2.0) == _color_of(1.0)


def test_a_loop_is_closed_and_an_open_path_is_not():
    orbit, arc = (parse_path(text).cameras(40, 8, 8) for text in ("orbit", "arc:by=200"))
    assert len(_flight(orbit)) == 41 and torch.equal(_flight(orbit)[0], _flight(orbit)[-1])
    assert len(_flight(arc)) == 40


def test_what_lies_behind_the_scene_is_faint():
    path = parse_path("orbit:elevation=0")
    cameras, times = path.cameras(60, 64, 48), path.times(60)
    viewpoint = overlook(cameras, 320, 240)
    white, wall = torch.ones(3, 240, 320), torch.full((240, 320), 0.1)
    hidden = draw_path(cameras, times, viewpoint, white, wall)
    plain = draw_path(cameras, times, viewpoint, white, torch.full_like(wall, torch.inf))
    pixels, _ = project(viewpoint, cameras.origins)
    x, y = (round(value) for value in pixels[37].tolist())
    patch = (slice(None), slice(y - 1, y + 2), slice(x - 1, x + 2))
    assert hidden[patch].min() > plain[patch].min() + 0.2


def test_the_backdrop_is_seen():
    path = parse_path("static")
    cameras, times = path.cameras(3, 64, 48), path.times(3)
    viewpoint = overlook(cameras, 320, 240)
    backdrop = torch.tensor([0.2, 0.5, 0.7])[:, None, None].expand(3, 240, 320)
    picture = draw_path(cameras, times, viewpoint, backdrop)
    torch.testing.assert_close(picture[:, 100, 10], backdrop[:, 100, 10], atol=0.01, rtol=0)
