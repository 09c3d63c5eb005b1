import json

import pytest
import torch
from grid_scenes import home_cameras, see_ball
from PIL import Image

from lrm4d.cli import run
from lrm4d.generation.depth import save_geometry
from lrm4d.generation.geometry import Geometry
from lrm4d.generation.grid import load_grid, load_target_cameras
from lrm4d.generation.network import InpaintingNetwork, NanoConfig, save_network
from lrm4d.scenes import load_scene
from lrm4d.trajectories import parse_bank, save_path
from lrm4d.video import write_video

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = NanoConfig(width=24, heads=2, layers=1, patch=8, words=1, text_width=8, frequencies=16)


@pytest.fixture
def clip(tmp_path):
    """The ball's video and geometry, in a world of its own scale, and an untrained inpainter, which copies warps."""
    times = torch.linspace(0, 1, 3)
    home = home_cameras(3, 32)
    images, depths, hit = see_ball(home, times)
    write_video(tmp_path / "clip.mp4", images, 12.0)
    save_geometry(tmp_path / "g.npz", Geometry(depths, home, hit))
    torch.manual_seed(0)
    save_network(InpaintingNetwork(TINY), tmp_path / "net")
    return tmp_path


def command(clip, *more) -> list[str]:
    given = ["generate", clip / "clip.mp4", "--geometry", clip / "g.npz", "--inpainter", clip / "net", "--steps", 2]
    return [str(word) for word in (*given, "-o", clip / "grid", *more)]


def test_a_video_becomes_a_grid_that_is_a_scene(clip, capsys):
    assert run(command(clip, "--preset", "full4d", "--bank", "fan:views=2,span=30", "--json")) == 0
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    assert (told["views"], told["frames"], told["width"]) == (3, 3, 32) and "6 pictures in 1 steps" in printed.err
    grid = load_grid(clip / "grid")
    assert told["seen"] == pytest.approx(grid.known.float().mean((0, 2, 3, 4)).tolist(), abs=1e-4)
    assert told["seen"][0] == 1 and 0.1 < told["seen"][1] < 0.9
    assert torch.allclose(grid.cameras.origins.norm(dim=-1), torch.tensor(2.7), atol=0.35)
    assert len(load_scene(clip / "grid").frames) == 9
    written = (clip / "grid" / "transforms.json").stat().st_mtime_ns
    assert run(command(clip, "--preset", "full4d", "--bank", "fan:views=2,span=30")) == 0
    printed = capsys.readouterr()
    assert "steps" not in printed.err and "3 views of 3 frames" in printed.out, "nothing was left to make"
    assert (clip / "grid" / "transforms.json").stat().st_mtime_ns > written


def test_given_cameras_are_those_of_the_videos_world(clip, capsys):
    bank = parse_bank("fan:views=3,span=30")
    save_path(clip / "cameras.json", bank.cameras(3, 32, 32), torch.zeros(3), form="transforms")
    assert run(command(clip, "--cameras", clip / "cameras.json", "--frames", 2, "--json")) == 0
    told, grid = json.loads(capsys.readouterr().out), load_grid(clip / "grid")
    assert told["views"] == 4 and told["frames"] == 2
    between = grid.cameras[0, 1:].camera_to_world[:, :3, :3]
    wanted = bank.cameras(3, 32, 32).camera_to_world[:, :3, :3]
    torch.testing.assert_close(between[0].mT @ between, wanted[0].mT @ wanted, atol=1e-5, rtol=0)


def test_a_grids_cameras_can_be_asked_for_again_and_they_move(clip, capsys):
    """A file with a camera for each frame of each view, as grids are written."""
    moving = parse_bank("fan:views=3,span=30").cameras(3, 32, 32)  # by time; the second view stands still
    other = parse_bank("ring:views=2").cameras(2, 32, 32)[torch.tensor([0])]
    save_path(clip / "cameras.json", moving, torch.linspace(0, 1, 3), form="transforms")
    save_path(clip / "other.json", other, torch.zeros(1), form="transforms")
    content = json.loads((clip / "cameras.json").read_text())
    frames = [{**frame, "view": "walk"} for frame in reversed(content["frames"])]
    frames += [{**frame, "view": "rest"} for frame in json.loads((clip / "other.json").read_text())["frames"]]
    (clip / "cameras.json").write_text(json.dumps({**content, "frames": frames}))
    assert run(command(clip, "--cameras", clip / "cameras.json", "--json")) == 0
    grid = load_grid(clip / "grid")
    assert json.loads(capsys.readouterr().out)["views"] == 3
    walked, wanted = grid.cameras[:, 1].camera_to_world[:, :3, :3], moving.camera_to_world[:, :3, :3]
    torch.testing.assert_close(walked[0].mT @ walked, wanted[0].mT @ wanted, atol=1e-5, rtol=0)
    assert (walked[0] - walked[2]).abs().max() > 0.1
    assert torch.equal(grid.cameras[0, 2].camera_to_world, grid.cameras[2, 2].camera_to_world)
    half = load_target_cameras(clip / "cameras.json", 5, 32, 32)
    torch.testing.assert_close(half[::2, 0].camera_to_world, moving.camera_to_world, atol=1e-6, rtol=0)
    (clip / "cameras.json").write_text(json.dumps({**content, "frames": frames[:3] + content["frames"]}))
    assert run(command(clip, "--cameras", clip / "cameras.json")) == 2
    assert "3 of 6 frames name their view" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--inpainter", "nothing"), "no inpainter called 'nothing'"),
        (("--preset", "nothing"), "there are easycreator"),
        (("--set", "plan.windows=3"), "windows"),
        (("--bank", "circle"), "there are fan"),
    ],
)
def test_what_is_missing_is_said(clip, more, message, capsys):
    assert run(command(clip, *more)) == 2
    assert message in capsys.readouterr().err


def test_a_bank_is_drawn_and_written_as_a_path(tmp_path, capsys):
    assert run(["path", "ring:views=5", "-o", str(tmp_path / "bank.png")]) == 0
    with Image.open(tmp_path / "bank.png") as picture:
        assert picture.size == (960, 720)
    assert run(["path", "ring:views=5", "-o", str(tmp_path / "bank.json"), "--json"]) == 0
    assert '"frames": 5' in capsys.readouterr().out
