import json

import pytest
import torch
from moving_scene import make_gaussians, make_views, write_moving_scene, write_tiny_network
from PIL import Image

from lrm4d.cli import run
from lrm4d.generation.depth import render_geometry, save_geometry
from lrm4d.generation.geometry import Geometry, static_cameras
from lrm4d.video import read_video, write_video

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def clip(tmp_path):
    """A video of 4 frames, a wall 3 units off."""
    picture = torch.linspace(0.2, 0.8, 32).expand(3, 24, 32)
    write_video(tmp_path / "clip.mp4", picture.expand(4, 3, 24, 32), 12.0)
    depths = torch.full((4, 1, 24, 32), 3.0)
    save_geometry(tmp_path / "g.npz", Geometry(depths, static_cameras(4, 32, 24, 50.0), depths > 0))
    return tmp_path


def run_for_json(capsys, *arguments) -> dict:
    code = run([*map(str, arguments), "--json"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return json.loads(printed.out)


def test_a_path_at_rest_shows_the_video_itself(clip, capsys):
    out = clip / "out"
    told = run_for_json(
        capsys, "warp", clip / "clip.mp4", "--geometry", clip / "g.npz", "--trajectory", "static", "-o", out
    )
    assert told["seen_least"] == 1 and told["frames"] == 4 and (told["width"], told["height"]) == (32, 24)
    levels, _ = read_video(clip / "clip.mp4")
    for index in range(4):
        shown = torch.tensor(list(Image.open(out / f"frame_{index}.png").tobytes())).reshape(24, 32, 3)
        assert torch.equal(shown.movedim(-1, 0), levels[index].long())


def test_holes_have_their_color_and_their_mask(clip, capsys):
    arguments = ("--geometry", clip / "g.npz", "--trajectory", "truck:by=1", "--holes", "#ff0000", "--frames", 2)
    told = run_for_json(
        capsys, "warp", clip / "clip.mp4", *arguments, "-o", clip / "out", "--visibility", clip / "seen"
    )
    assert told["frames"] == 2 and told["seen_least"] == pytest.approx(1 - 1 / 2.518, abs=0.03)
    shown, seen = (Image.open(clip / name / "frame_1.png").convert("RGB") for name in ("out", "seen"))
    assert shown.getpixel((31, 12)) == (255, 0, 0) and seen.getpixel((31, 12)) == (0, 0, 0)
    assert seen.getpixel((0, 12)) == (255, 255, 255)


def test_given_cameras_are_taken_as_they_are_and_a_video_has_the_clips_rate(clip, capsys):
    write_moving_scene(clip / "scene")
    views = make_views()
    save_geometry(clip / "scene.npz", render_geometry(make_gaussians(), views.cameras, views.times))
    write_video(clip / "scene.mp4", views.composite(torch.ones(3)), 10.0)
    arguments = ("--geometry", clip / "scene.npz", "--cameras", clip / "scene/transforms.json", "-o", clip / "x.mp4")
    told = run_for_json(capsys, "warp", clip / "scene.mp4", *arguments)
    frames, rate = read_video(clip / "x.mp4")
    assert len(frames) == told["frames"] == 6 and rate == pytest.approx(10, rel=0.01)
    covered = (render_geometry(make_gaussians(), views.cameras, views.times).valid).float().mean()
    assert told["seen_mean"] == pytest.approx(covered.item(), abs=0.01), "its own cameras see what it saw"


def test_a_network_tells_depth_without_any_file(clip, capsys):
    network = write_tiny_network(clip / "network")
    told = run_for_json(
        capsys, "warp", clip / "clip.mp4", "--depth", network, "--frames", 2, "-o", clip / "out", "--size", "16"
    )
    assert told["frames"] == 2 and (told["width"], told["height"]) == (16, 16)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--geometry", "nothing.npz"), "nothing.npz"),
        (("--geometry", "g.npz", "--trajectory", "fly"), "fly"),
        (("--depth", "hf:/no/such/model"), "no/such/model"),
        (("--geometry", "g.npz", "--cameras", "none.json"), "none.json"),
        (("--geometry", "g.npz", "--holes", "rainbow"), "rainbow"),
    ],
)
def test_errors_are_one_message(clip, capsys, monkeypatch, arguments, said):
    monkeypatch.chdir(clip)
    code = run(["warp", "clip.mp4", "-o", "out", *arguments])
    printed = capsys.readouterr()
    assert code == 2 and printed.err.startswith("error: ") and said in printed.err
    assert "Traceback" not in printed.err and not (clip / "out").exists()


def test_an_empty_folder_is_an_error(tmp_path, capsys):
    assert run(["warp", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "holds no pictures" in capsys.readouterr().err
