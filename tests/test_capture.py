"""A four-camera capture: a synthetic one, written in the form of the real one, and the real one where it is."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from eval.capture import check_calibration, main, read_moments, read_rig
from eval.foreground import align, count_masks, estimate_background, find_foreground, overlap, shift, triangulate
from lrm4d.cameras import Cameras, intrinsics_from_fov, look_at, project
from lrm4d.scenes import load_scene
from lrm4d.scenes.pictures import save_picture
from lrm4d.scenes.qualisys import fit_to_video, load_qualisys
from lrm4d.video import write_video

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("cam01", "cam02", "cam03", "cam04")
WIDTH, HEIGHT, FRAMES = 96, 128, 5
CENTRE = torch.tensor([0.4, -0.2, 1.0])
RADIUS = 0.3


def make_cameras() -> list[Cameras]:
    """Around the place, each a little tilted, one farther."""
    around = torch.tensor([[2.4, -1.6, 1.9], [2.3, 1.9, 1.7], [-2.6, 2.1, 2.0], [-2.2, -2.0, 1.8]])
    poses = look_at(around, CENTRE + torch.tensor([0.1, 0.0, 0.05]), up=(0.1, 0.05, 1.0))
    return [Cameras(pose, intrinsics_from_fov(0.75, WIDTH, HEIGHT), WIDTH, HEIGHT) for pose in poses]


def see_balls(camera: Cameras) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures [time] of two balls that fly apart and change colour in a striped room, and where they are."""
    origins, directions = camera.rays()
    stripes = 0.5 + 0.2 * torch.sin(8 * directions)
    frames, masks = [], []
    for time in torch.linspace(0, 1, FRAMES):
        hit = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
        for side in (-1, 1):
            place = CENTRE + side * torch.tensor([0.0, 0.25, 0.3]) * (0.3 + time)
            along = ((place - origins) * directions).sum(-1)
            hit |= (place - origins - along[..., None] * directions).norm(dim=-1) < RADIUS
        picture = torch.where(hit[..., None], torch.tensor([0.95, float(time), 0.1]), stripes)
        frames.append(picture.movedim(-1, 0))
        masks.append(hit[None])
    return torch.stack(frames), torch.stack(masks)


def describe(camera: Cameras, name: str) -> str:
    """A camera as Qualisys writes it."""
    world_to_camera = camera.world_to_camera.double()
    m = torch.diag(torch.tensor([1.0, -1, -1], dtype=torch.float64)) @ world_to_camera[:3, :3]
    entries = " ".join(f'r{i + 1}{j + 1}="{m[i, j]:.12f}"' for i in range(3) for j in range(3))
    place = " ".join(
        f'{axis}="{1000 * value:.9f}"' for axis, value in zip("xyz", camera.origins.tolist(), strict=True)
    )
    k = camera.intrinsics
    lens = (
        f'centerPointU="{64 * (k[0, 2] + 5)}" centerPointV="{64 * k[1, 2]}" '
        f'focalLengthU="{64 * k[0, 0]}" focalLengthV="{64 * k[1, 1]}"'
    )
    part = f'left="5" top="0" right="{camera.width + 4}" bottom="{camera.height - 1}"'
    return f'<camera serial="{name}"><fov_video {part}/><transform {entries} {place}/><intrinsic {lens}/></camera>'


@dataclass
class Capture:
    folder: Path
    cameras: list[Cameras]
    masks: list[torch.Tensor]


@pytest.fixture(scope="module")
def capture(tmp_path_factory) -> Capture:
    folder, cameras = tmp_path_factory.mktemp("capture"), make_cameras()
    calibration = "".join(describe(camera, name) for camera, name in zip(cameras, NAMES, strict=True))
    (folder / "calibration" / "extrinsics").mkdir(parents=True)
    text = f"<calibration><cameras>{calibration}</cameras></calibration>"
    (folder / "calibration" / "room.qca.txt").write_text(text)
    masks = []
    for name, camera in zip(NAMES, cameras, strict=True):
        pictures, mask = see_balls(camera)
        write_video(folder / "videos" / f"{name}.mp4", pictures, 60.0)
        masks.append(mask)
        _, directions = camera.rays()
        plate = (0.5 + 0.2 * torch.sin(8 * directions)).movedim(-1, 0)
        save_picture(folder / "calibration" / "extrinsics" / f"{name}_ext.png", plate)
    return Capture(folder, cameras, masks)


def test_a_calibration_gives_the_cameras_back(capture):
    read = load_qualisys(capture.folder / "calibration" / "room.qca.txt")
    assert tuple(read) == NAMES
    for camera, truth in zip(read.values(), capture.cameras, strict=True):
        assert (camera.width, camera.height) == (WIDTH, HEIGHT)
        torch.testing.assert_close(camera.camera_to_world.float(), truth.camera_to_world, atol=1e-5, rtol=0)
        torch.testing.assert_close(camera.intrinsics.float(), truth.intrinsics, atol=1e-4, rtol=0)


def test_videos_of_another_shape_have_bars():
    # As told of the real capture: x' = 0.99265 x, y' = 0.99265 y + 7.06 from 1088 x 1920 to 1080 x 1920.
    camera = Cameras(torch.eye(4), torch.tensor([[1600.0, 0, 500], [0, 1600, 900], [0, 0, 1]]), 1088, 1920)
    fitted = fit_to_video(camera, 1080, 1920)
    pixels, _ = project(fitted, torch.tensor([0.2, -0.3, 2.0]))
    before, _ = project(camera, torch.tensor([0.2, -0.3, 2.0]))
    torch.testing.assert_close(pixels, before * 0.99265 + torch.tensor([0, 7.06]), atol=2e-2, rtol=0)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("<calibration><cameras>", "cannot be read as XML"),
        ("<calibration/>", "holds no <cameras>"),
        ('<c><cameras><camera serial="a"/></cameras></c>', "transform r11 is None"),
    ],
)
def test_broken_calibrations_are_named(tmp_path, text, complaint):
    (tmp_path / "x.qca.txt").write_text(text)
    with pytest.raises(ValueError, match=rf"x\.qca\.txt: .*{complaint}"):
        load_qualisys(tmp_path / "x.qca.txt")


def test_a_point_is_found_from_its_pixels_and_counted():
    cameras, point = make_cameras(), torch.tensor([0.3, 0.1, 1.2])
    pixels = [project(camera, point)[0] for camera in cameras]
    torch.testing.assert_close(triangulate(pixels, cameras), point, atol=1e-4, rtol=0)
    masks = [torch.zeros(1, 1, HEIGHT, WIDTH, dtype=torch.bool) for _ in cameras]
    for mask, (x, y) in zip(masks[:3], pixels, strict=False):
        mask[..., int(y), int(x)] = True
    elsewhere = point + torch.tensor([0.0, 0.0, 0.4])
    assert count_masks(torch.stack([point, elsewhere]), masks, cameras).tolist() == [[3, 0]]


def test_a_plate_tells_what_the_video_never_shows():
    truth = torch.linspace(0, 1, 32).expand(3, 8, 32)
    video = truth.repeat(6, 1, 1, 1)
    video[:, :, :, 10:14] = 0.9  # stands there all the time, but for its colour, which changes
    video[::2, :, :, 10:14] = 0.05
    plate = truth.clone()
    plate[:, :, 20:24] = 0.0  # someone stood there when the plate was taken
    assert (estimate_background(video, plate) - truth).abs().max() < 1e-6
    assert (estimate_background(video, None) - truth).abs().max() > 0.2


def test_the_foreground_is_found_and_a_knocked_camera_is_put_right(capture):
    rig = read_rig(capture.folder, FRAMES, 64)
    knocked = list(rig.cameras)
    knocked[2] = shift(knocked[2], torch.tensor([-3.0, 2.0]))
    found = find_foreground(rig.videos, knocked, rig.plates)
    for mask, truth in zip(found.masks, capture.masks, strict=True):
        assert overlap(mask, truth).min() > 0.8
    torch.testing.assert_close(found.shifts[2], torch.tensor([3.0, -2.0]), atol=1.0, rtol=0)
    assert found.shifts[[0, 1, 3]].abs().max() <= 1
    # The balls' farthest places lie 0.51 from the centre, and they reach RADIUS farther.
    assert (found.centre - CENTRE).norm() < 0.06 and abs(found.radius - 0.81) < 0.1
    before, after = (check_calibration(found, cameras) for cameras in (knocked, rig.cameras))
    assert before[2]["iou_before"] < after[2]["iou_before"] - 0.05


def test_cameras_that_fit_stay(capture):
    shifts = align(capture.masks, make_cameras(), CENTRE, 1.0)
    assert shifts.abs().max() <= 1


def test_the_command_judges_each_camera_by_the_others(capture, tmp_path, capsys):
    arguments = ["--capture", str(capture.folder), "--model", "none", "--moments", "5", "--size", "32"]
    assert main([*arguments, "-o", str(tmp_path)]) == 0
    scene = load_scene(tmp_path / "scene")  # which also checks that the cameras stand around the unit sphere
    for held in NAMES:
        inputs, targets = scene.protocol(f"without_{held}")
        assert len(inputs) == 9 and len(targets) == 5 and not any(held in path for path in inputs)
        assert all(held in path for path in targets)
        assert (tmp_path / f"without_{held}.png").is_file() and (tmp_path / f"without_{held}.mp4").is_file()
    # The object lies in the middle of every camera's picture, and whole.
    views = scene.views(scene.file_paths)
    assert views.alphas[..., (0, -1), :].max() == 0 and views.alphas[..., (0, -1)].max() == 0
    assert (views.alphas > 0.5).float().mean((1, 2, 3)).min() > 0.03
    # What the ball's middle is in the world is there in the pictures: all cameras' masks meet.
    masks = [(views.alphas[k * 5 : k * 5 + 5] > 0.5) for k in range(4)]
    cameras = [views.cameras[k * 5] for k in range(4)]
    about = json.loads((tmp_path / "report.json").read_text())
    middle = (CENTRE - torch.tensor(about["centre"])) / about["radius"]
    assert count_masks(middle + torch.tensor([[0.0, 0.0, 0.0]]), masks, cameras)[0].tolist() == [4]
    assert "| mean | nearest view |" in capsys.readouterr().out


def test_what_is_missing_is_named(capture, tmp_path, capsys):
    assert main(["--capture", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "expected one calibration" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"cam09\.mp4: there is no such video"):
        read_moments(capture.folder / "videos" / "cam09.mp4", 3, 1)
    broken = tmp_path / "cam01.mp4"
    broken.write_bytes((capture.folder / "videos" / "cam01.mp4").read_bytes()[:600])
    with pytest.raises(ValueError, match=r"cam01\.mp4: cannot be decoded"):
        read_moments(broken, 3, 1)
    with pytest.raises(ValueError, match="expected at least 50"):
        read_moments(capture.folder / "videos" / "cam01.mp4", 50, 1)


def test_the_real_calibration_is_read(shared):
    folder = shared / "multiview" / "pose2sim_Demo_SinglePerson"
    if not folder.is_dir():
        pytest.skip("the capture is not there")
    cameras = load_qualisys(folder / "calibration" / "Calib.qca.txt")
    assert tuple(cameras) == NAMES
    for camera in cameras.values():
        assert (camera.width, camera.height) == (1088, 1920)
        # All look down a little on a place near the world's origin, about a metre high.
        assert 1.5 < float(camera.origins[2]) < 2.5
        _, depth = project(camera, torch.tensor([-0.9, 0.0, 0.9], dtype=torch.float64))
        assert 2 < float(depth) < 4.5
