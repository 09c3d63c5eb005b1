import json
from dataclasses import replace

import pytest
import torch
from grid_scenes import ball_grid, home_cameras, see_ball

from lrm4d.cli.command import run
from lrm4d.generation.grid import load_grid, save_grid, start_grid
from lrm4d.metrics import masked_psnr
from lrm4d.scenes import load_scene
from lrm4d.video import read_video, to_bytes

pytestmark = pytest.mark.usefixtures("one_thread")


def rounded(grid):
    return replace(grid, images=to_bytes(grid.images).float() / 255)


def test_a_grid_starts_as_the_video_and_what_it_shows_to_others():
    grid, _ = ball_grid(size=48)
    truth, _, hit = see_ball(grid.cameras, grid.times)
    assert grid.shape == (3, 3) and grid.known[:, 0].all()
    assert torch.equal(grid.images[:, 0], truth[:, 0])
    assert torch.equal(grid.cameras.camera_to_world[:, 0], home_cameras(3, 48).camera_to_world)
    seen = grid.known & hit
    assert 0.3 < seen[:, 1:].float().mean() < hit[:, 1:].float().mean()
    assert masked_psnr(grid.images, truth, seen)[:, 1:].min() > 20
    assert (grid.images * ~grid.known).abs().max() == 0


def test_cameras_that_move_are_taken_as_they_are():
    grid, geometry = ball_grid()
    moving = grid.cameras[:, 1:]
    again = start_grid(grid.images[:, 0], geometry, moving, grid.times)
    assert torch.equal(again.images, grid.images) and torch.equal(again.known, grid.known)


def test_saved_and_loaded(tmp_path):
    grid = rounded(ball_grid()[0])
    save_grid(tmp_path / "grid", grid, 12.0)
    again = load_grid(tmp_path / "grid")
    assert torch.equal(again.images, grid.images) and torch.equal(again.known, grid.known)
    assert torch.equal(again.times, grid.times)
    torch.testing.assert_close(again.cameras.camera_to_world, grid.cameras.camera_to_world, atol=1e-6, rtol=0)
    torch.testing.assert_close(again.cameras.intrinsics, grid.cameras.intrinsics)
    for view in range(3):
        frames, rate = read_video(tmp_path / "grid" / f"view{view:02}.mp4")
        assert len(frames) == 3 and rate == pytest.approx(12)
        assert (frames / 255 - grid.images[:, view]).abs().mean() < 0.06


def test_a_grid_is_a_scene(tmp_path):
    grid = rounded(ball_grid()[0])
    save_grid(tmp_path, grid)
    scene = load_scene(tmp_path)
    assert len(scene.frames) == 9 and {frame.view for frame in scene.frames} == {"view00", "view01", "view02"}
    paths = [f"images/view{view:02}_{time:04}.png" for time in range(3) for view in range(3)]
    views, own = scene.views(paths), grid.to_views()
    assert torch.equal(views.images, own.images) and torch.equal(views.times, own.times)
    torch.testing.assert_close(views.cameras.camera_to_world, own.cameras.camera_to_world, atol=1e-6, rtol=0)


def test_the_command_reconstructs_a_grid(tmp_path, capsys):
    grid, _ = ball_grid(size=32, count=2)
    truth, _, _ = see_ball(grid.cameras, grid.times)
    save_grid(tmp_path / "grid", replace(grid, images=truth))
    command = ["reconstruct", str(tmp_path / "grid"), "-o", str(tmp_path / "out"), "--no-video", "--json"]
    assert run(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["inputs"]) == 6 and (tmp_path / "out" / "scene.safetensors").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cameras: cameras.resize(8, 8), "8 x 8 pixels"),
        (lambda cameras: cameras[:1], r"cameras of shape \(1, 3\)"),
        (lambda cameras: cameras.reshape(-1), r"cameras of shape \(9,\)"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    grid, _ = ball_grid()
    with pytest.raises(ValueError, match=message):
        replace(grid, cameras=change(grid.cameras))


def test_broken_folders_say_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        load_grid(tmp_path)
    save_grid(tmp_path, ball_grid()[0])
    file = tmp_path / "transforms.json"
    text = file.read_text()
    content = json.loads(text)
    file.write_text(json.dumps({**content, "frames": content["frames"][:-1]}))
    with pytest.raises(ValueError, match="8 pictures; expected each of 3 views"):
        load_grid(tmp_path)
    file.write_text(text.replace("known_path", "mask_path"))
    with pytest.raises(ValueError, match="not any scene"):
        load_grid(tmp_path)
    file.write_text(text[:100])
    with pytest.raises(ValueError, match="not valid JSON"):
        load_grid(tmp_path)
    file.write_text(text)
    picture = tmp_path / "images" / "view01_0001.png"
    picture.write_bytes(picture.read_bytes()[:60])
    with pytest.raises(ValueError, match="view01_0001"):
        load_grid(tmp_path)
