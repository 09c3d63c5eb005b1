import json
import math
import struct

import numpy as np
import pytest
import torch

from lrm4d.cameras import Cameras, project
from lrm4d.trajectories import Rig, load_path, orbit, parse_path, read_path, save_path, static
from lrm4d.trajectories.files import SUFFIXES, WRITERS
from lrm4d.trajectories.formats.trajectorycrafter import spline
from lrm4d.trajectories.recording import Recording, slerp

UPRIGHT = "arc:by=60,elevation=0,distance=3 + zoom; tilt:by=0; dolly:to=2,time=0.5"
ROLLING = "spiral:rise=50,to=2 + roll:by=400 + pan:by=30 + zoom"


def make(text, count=11):
    path = parse_path(text)
    return path.cameras(count, 64, 48), path.times(count)


def written(tmp_path, form, cameras, times):
    file = tmp_path / f"path{SUFFIXES[form]}"
    save_path(file, cameras, times, 24.0, form)
    return file


def same_cameras(one, other, atol=2e-6):
    torch.testing.assert_close(one.camera_to_world, other.camera_to_world, atol=atol, rtol=0)
    torch.testing.assert_close(one.intrinsics, other.intrinsics, atol=1e-3, rtol=0)


# Round trips


@pytest.mark.parametrize("form", sorted(set(WRITERS) - {"trajectorycrafter"}))
@pytest.mark.parametrize("text", [UPRIGHT, ROLLING])
def test_a_file_gives_back_its_cameras(tmp_path, form, text):
    cameras, times = make(text)
    if form == "recammaster":  # without a lens
        cameras = Cameras(cameras.camera_to_world, cameras.intrinsics[:1].expand(11, 3, 3), 64, 48)
    file = written(tmp_path, form, cameras, times)
    path = read_path(str(file))
    assert path.natural_count == 11
    back = path.cameras(11, 64, 48)
    same_cameras(back, cameras)
    expected = times if form in ("nerfstudio", "transforms") else torch.linspace(0, 1, 11)
    torch.testing.assert_close(path.times(11), expected, atol=1e-6, rtol=0)
    save_path(tmp_path / f"again{SUFFIXES[form]}", back, times, 24.0, form)
    same_cameras(load_path(tmp_path / f"again{SUFFIXES[form]}").cameras(11, 64, 48), cameras, 5e-6)


@pytest.mark.parametrize("form", ["transforms", "colmap", "colmap-binary"])
def test_off_centre_lenses_with_two_focal_lengths_survive(tmp_path, form):
    cameras, times = make(UPRIGHT)
    k = cameras.intrinsics.clone()
    k[:, 1, 1] *= 1.2
    k[:, 0, 2] += 3
    k[:, 1, 2] -= 2
    cameras = Cameras(cameras.camera_to_world, k, 64, 48)
    same_cameras(read_path(str(written(tmp_path, form, cameras, times))).cameras(11, 64, 48), cameras)


@pytest.mark.parametrize("form", ["nerfstudio", "vista4d"])
def test_formats_that_cannot_hold_a_lens_say_so(tmp_path, form):
    cameras, times = make(UPRIGHT)
    k = cameras.intrinsics.clone()
    k[:, 0, 2] += 3
    with pytest.raises(ValueError, match="cent"):
        written(tmp_path, form, Cameras(cameras.camera_to_world, k, 64, 48), times)


def test_a_trajectorycrafter_text_gives_back_what_it_can_say(tmp_path):
    text = "arc:by=40,elevation=0,distance=3; arc:by=0,rise=0; truck:by=0.3"
    start = Rig(elevation=0, distance=3)
    path = parse_path(text)
    cameras, times = path.cameras(31, 64, 48, start), path.times(31)
    file = written(tmp_path, "trajectorycrafter", cameras, times)
    assert len(file.read_text().splitlines()) == 5
    same_cameras(read_path(str(file)).cameras(31, 64, 48, start), cameras, 1e-4)


def test_a_full_turn_is_not_folded_at_180_degrees(tmp_path):
    cameras = orbit(elevation=0).cameras(31, 64, 48)
    file = written(tmp_path, "trajectorycrafter", cameras, torch.zeros(31))
    lines = [[float(word) for word in line.split()] for line in file.read_text().splitlines()]
    assert len(lines) == 3 and lines[1] == pytest.approx([360 * i / 31 for i in range(31)], abs=1e-3)
    assert lines[0] == pytest.approx([0] * 31, abs=1e-4) and lines[2] == pytest.approx([0] * 31, abs=1e-5)


def test_trajectorycrafter_refuses_what_its_numbers_cannot_say(tmp_path):
    for text in (ROLLING, "orbit:elevation=30"):
        with pytest.raises(ValueError, match="turns otherwise"):
            written(tmp_path, "trajectorycrafter", *make(text))


# Conventions, from the formats' own definitions


def test_nerfstudio_is_opengl_with_a_vertical_field_of_view(tmp_path):
    cameras = static(azimuth=90, elevation=0, distance=2, fov=90).cameras(1, 200, 100)
    file = written(tmp_path, "nerfstudio", cameras, torch.tensor([0.25]))
    content = json.loads(file.read_text())
    entry = content["camera_path"][0]
    matrix = torch.tensor(entry["camera_to_world"]).reshape(4, 4)
    # From +x: right is +y, up is +z, back is +x.
    expected = torch.tensor([[0, 0, 1, 2.0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    torch.testing.assert_close(matrix, expected, atol=1e-6, rtol=0)
    assert entry["fov"] == pytest.approx(2 * math.degrees(math.atan(0.5))) and entry["aspect"] == 2
    assert entry["render_time"] == 0.25 and content["keyframes"][0]["matrix"] == entry["camera_to_world"]
    assert (content["render_width"], content["render_height"], content["camera_type"]) == (200, 100, "perspective")


def test_colmap_is_world_to_camera(tmp_path):
    cameras = static(azimuth=0, elevation=0, distance=2, fov=90).cameras(2, 200, 100)
    folder = written(tmp_path, "colmap", cameras, torch.zeros(2))
    words = (folder / "images.txt").read_text().splitlines()[1].split()
    w, x, y, z, *t = map(float, words[1:8])
    assert (w, x, y, z) == pytest.approx((math.sqrt(0.5), math.sqrt(0.5), 0, 0), abs=1e-6)  # z up to y down
    assert t == pytest.approx([0, 0, 2], abs=1e-6) and words[8:] == ["1", "frame_00000.png"]
    assert (folder / "cameras.txt").read_text().splitlines()[1] == "1 PINHOLE 200 100 100 100 100 50"


def test_colmap_orders_by_name_skips_points_and_shares_cameras(tmp_path):
    folder = tmp_path / "sparse" / "0"
    folder.mkdir(parents=True)
    (folder / "cameras.txt").write_text("# cameras\n7 SIMPLE_RADIAL 100 50 80 50 25 0\n")
    (folder / "images.txt").write_text(
        "# images\n1 1 0 0 0 0 0 5 7 b c.png\n1.5 2.5 -1 3 4 8\n2 1 0 0 0 0 0 3 7 a.png\n\n"
    )
    path = read_path(str(tmp_path))
    cameras = path.cameras(2, 100, 50)
    torch.testing.assert_close(cameras.origins, torch.tensor([[0.0, 0, -3], [0, 0, -5]]))
    assert cameras.intrinsics[0, 0, 0] == 80
    assert load_path(folder / "images.txt").natural_count == 2


def test_recammaster_is_unreal_in_centimetres(tmp_path):
    # Unreal: x forward, y right, z up. A camera at (100, 200, 300) cm that looks along +y, its right along -x.
    text = "[0 1 0 0] [-1 0 0 0] [0 0 1 0] [100 200 300 1] "
    (tmp_path / "a.json").write_text(json.dumps({"frame0": {"cam01": text}}))
    pose = read_path(str(tmp_path / "a.json")).cameras(1, 8, 8).camera_to_world[0]
    # Ours negates y, so forward is -y, right is -x, down is -z.
    expected = torch.tensor([[-1, 0, 0, 1.0], [0, 0, -1, -2], [0, -1, 0, 3], [0, 0, 0, 1]])
    torch.testing.assert_close(pose, expected, atol=1e-6, rtol=0)


@pytest.mark.shared
def test_the_real_recammaster_file(shared):
    file = shared / "formats" / "recammaster_camera_extrinsics.json"
    with pytest.raises(ValueError, match=r"10 cameras; choose one of cam01, cam02.*#cam01"):
        read_path(str(file))
    with pytest.raises(ValueError, match="no camera 'cam11'"):
        read_path(f"{file}#cam11")
    for name in ("cam01", "cam05", "cam10"):
        path = read_path(f"{file}#{name}")
        assert path.natural_count == 81
        cameras = path.cameras(81, 64, 48)
        torch.testing.assert_close(cameras.origins[0], torch.tensor([33.9, -13.8, 2.4]))
        torch.testing.assert_close(cameras.camera_to_world[0, :3, 2], torch.tensor([1.0, 0, 0]))
        torch.testing.assert_close(torch.linalg.det(cameras.camera_to_world[:, :3, :3]), torch.ones(81))
    pan_right = read_path(f"{file}#cam01").cameras(81, 64, 48)
    ahead, _ = project(pan_right[-1:], pan_right.origins[:1] + torch.tensor([[5.0, 0, 0]]))
    assert ahead[0, 0] < 32, "its name is pan right: what was ahead is now to the left"


@pytest.mark.shared
def test_the_real_vista4d_files(shared):
    for file in sorted((shared / "formats" / "vista4d_cams").glob("*.npz")):
        path, same_first = read_path(str(file)), read_path(f"{file}#fsff")
        with np.load(file, allow_pickle=False) as content:
            poses, intrinsics = content["cam_c2w"], content["intrinsics"]
        cameras = path.cameras(49, 1280, 720)
        torch.testing.assert_close(cameras.camera_to_world, torch.tensor(poses).float(), atol=1e-5, rtol=0)
        torch.testing.assert_close(cameras.intrinsics[:, 0, 0], torch.tensor(intrinsics[:, 0]).float())
        torch.testing.assert_close(cameras.intrinsics[0, :2, 2], torch.tensor([640.0, 360]))
        first = same_first.cameras(49, 1280, 720).camera_to_world[0]
        torch.testing.assert_close(first, torch.eye(4), atol=1e-5, rtol=0)
        with pytest.raises(ValueError, match="has no 'cam_c2w_other', only cam_c2w"):
            read_path(f"{file}#other")


def test_trajectorycrafter_turns_up_and_right_and_goes_forward(tmp_path):
    start = Rig(elevation=0, distance=2)
    still = static().cameras(1, 64, 48, start)[0]
    right, down, forward = still.camera_to_world[:3, :3].unbind(-1)
    ends = {
        "0 30\n0\n0": -2 * math.cos(math.pi / 6) * forward - 2 * math.sin(math.pi / 6) * down,
        "0\n0 30\n0": -2 * math.cos(math.pi / 6) * forward + 2 * math.sin(math.pi / 6) * right,
        "0\n0\n0 0.25": -1.5 * forward,
        "0\n0\n0\n0 0.1\n0 0.2": -2 * forward + 0.1 * right - 0.2 * down,
    }
    for text, place in ends.items():
        (tmp_path / "a.txt").write_text(text)
        cameras = read_path(str(tmp_path / "a.txt")).cameras(3, 64, 48, start)
        torch.testing.assert_close(cameras.origins[0], still.origins, atol=1e-6, rtol=0)
        torch.testing.assert_close(cameras.origins[-1], place, atol=1e-5, rtol=0)


def test_trajectorycrafter_sees_points_as_its_definition_says(tmp_path):
    """p is seen at R_y(phi) R_x(theta) (p - (x, -y, r rho)) + (0, 0, rho)."""
    (tmp_path / "a.txt").write_text("20\n30\n0.1\n0.2\n0.3\n")
    start = Rig(azimuth=10, elevation=25, distance=2)
    first = static().cameras(1, 64, 48, start).world_to_camera[0]
    camera = read_path(str(tmp_path / "a.txt")).cameras(1, 64, 48, start)
    a, b = math.radians(20), math.radians(30)
    tilted = torch.tensor([[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]])
    turned = torch.tensor([[math.cos(b), 0, math.sin(b)], [0, 1, 0], [-math.sin(b), 0, math.cos(b)]])
    for point in torch.randn(5, 3, generator=torch.Generator().manual_seed(0)):
        middle = torch.tensor([0, 0, 2.0])
        p = first[:3, :3] @ point + first[:3, 3] - middle
        expected = turned @ tilted @ (p - torch.tensor([0.2, -0.3, 0.2])) + middle
        seen = camera.world_to_camera[0, :3, :3] @ point + camera.world_to_camera[0, :3, 3]
        torch.testing.assert_close(seen, expected, atol=1e-5, rtol=0)


def test_the_spline_goes_through_its_keys_smoothly():
    keys = torch.tensor([0.0, 2, 10, 15, 12, 6, 0, -2], dtype=torch.float64)
    torch.testing.assert_close(spline(keys, 8), keys)
    fine = spline(keys, 7001)
    slopes = fine.diff() * 7000
    assert slopes.diff().abs().max() < 1, "no corners"
    assert slopes.diff()[[0, -1]].abs().max() < slopes.diff().abs().max() / 50, "natural ends"
    torch.testing.assert_close(spline(keys[:3], 5), torch.tensor([0.0, 1, 2, 6, 10], dtype=torch.float64))
    cubic = torch.linspace(0, 1, 5, dtype=torch.float64)
    torch.testing.assert_close(spline(cubic, 9), torch.linspace(0, 1, 9, dtype=torch.float64))


# Recordings


def test_between_cameras_places_go_straight_and_rotations_evenly():
    path = parse_path("arc:by=80,elevation=0")
    ends = Recording(path.cameras(2, 64, 48).camera_to_world.double())
    cameras = ends.cameras(5, 64, 48)
    straight = torch.lerp(cameras.origins[0], cameras.origins[-1], torch.linspace(0, 1, 5)[:, None])
    torch.testing.assert_close(cameras.origins, straight)
    turned = path.cameras(5, 64, 48).camera_to_world[:, :3, :3]
    torch.testing.assert_close(cameras.camera_to_world[:, :3, :3], turned, atol=1e-5, rtol=0)


def test_slerp_of_equal_and_of_negated_quaternions():
    q = torch.tensor([0.5, 0.5, 0.5, 0.5], dtype=torch.float64)
    half = torch.tensor(0.5, dtype=torch.float64)
    torch.testing.assert_close(slerp(q, q, half), q)
    torch.testing.assert_close(slerp(q, -q, half), q)


def test_another_size_keeps_the_horizontal_field_of_view():
    path = Recording(torch.eye(4, dtype=torch.float64)[None], torch.tensor([[0.8, 0.8, 0, 0]], dtype=torch.float64))
    for size in ((100, 50), (30, 90)):
        k = path.cameras(2, *size).intrinsics[1]
        assert k[0, 0] == k[1, 1] == pytest.approx(0.8 * size[0])
        assert (k[0, 2], k[1, 2]) == (size[0] / 2, size[1] / 2)


def test_a_file_without_a_lens_has_the_callers(tmp_path):
    cameras, times = make(UPRIGHT)
    path = read_path(str(written(tmp_path, "recammaster", cameras, times)))
    expected = static().cameras(1, 64, 48, Rig(fov=30)).intrinsics
    torch.testing.assert_close(path.cameras(1, 64, 48, Rig(fov=30)).intrinsics, expected)


# What is wrong is said


def test_a_text_is_a_path_where_no_file_has_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "orbit").mkdir()
    assert read_path("orbit") == orbit()
    assert len(read_path("; ".join(["orbit:turns=0.5"] * 40)).parts) == 40, "longer than a file's name can be"
    with pytest.raises(ValueError, match=r"orbit: holds no images\.txt"):
        read_path("./orbit")
    for name in ("no.json", "no.npz#fsff", "no.txt"):
        with pytest.raises(ValueError, match="there is no file"):
            read_path(str(tmp_path / name))
    with pytest.raises(ValueError, match="no such file"):
        load_path(tmp_path / "none")
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(ValueError, match=r"'\.csv' holds no camera path"):
        read_path(str(tmp_path / "a.csv"))
    with pytest.raises(ValueError, match=r"holds no images\.txt"):
        read_path(str(tmp_path))


def test_wrong_names_for_formats(tmp_path):
    cameras, times = make(UPRIGHT)
    for name, form in (("a.csv", None), ("a.json", "mayavi"), ("a.npz", "colmap"), ("a", "vista4d")):
        with pytest.raises(ValueError, match=r"expected one of|is written to"):
            save_path(tmp_path / name, cameras, times, 24.0, form)
    assert not list(tmp_path.iterdir())
    assert save_path(tmp_path / "a.json", cameras, times) == "nerfstudio"
    assert save_path(tmp_path / "a", cameras, times) == "colmap"


@pytest.mark.parametrize("form", sorted(WRITERS))
def test_every_truncation_is_a_value_error_or_the_same_cameras(tmp_path, form):
    cameras, times = make("arc:by=40,elevation=0", 26)
    file = written(tmp_path, form, cameras, times)
    files = sorted(file.iterdir()) if file.is_dir() else [file]
    for part in (each for each in files if not each.name.startswith("points3D")):
        whole = part.read_bytes()
        for cut in sorted({0, 1, 7, 8, 9, *range(0, len(whole), max(1, len(whole) // 40)), len(whole) - 1}):
            part.write_bytes(whole[:cut])
            try:
                read = load_path(file)
            except ValueError as error:
                assert str(tmp_path) in str(error)
            else:  # text that lost whole lines, or its end's newline
                assert form in ("colmap", "trajectorycrafter") or cut == len(whole) - 1
                assert read.cameras(3, 8, 8).shape == (3,)
        part.write_bytes(whole)
    load_path(file)


def change(file, edit):
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.update(camera_path=[]), "at least one camera"),
        (lambda c: c.update(camera_path=5), "at least one camera"),
        (lambda c: c.update(camera_type="fisheye"), "expected perspective"),
        (lambda c: c["camera_path"][1].pop("camera_to_world"), r"camera_path\[1\] has no 'camera_to_world'"),
        (lambda c: c["camera_path"][1].update(camera_to_world=[1.0] * 15), "expected 16"),
        (lambda c: c["camera_path"][1].update(camera_to_world=[1.0] * 16), "camera 1 is .* away from a rotation"),
        (lambda c: c["camera_path"][0].update(camera_to_world=["a"] * 16), "expected numbers"),
        (lambda c: c["camera_path"][0].update(fov=200), "fov 200"),
        (lambda c: c["camera_path"][0].update(fov=None), "has no 'fov'"),
        (lambda c: c["camera_path"][0].update(render_time=3), "expected them in"),
        (lambda c: c["camera_path"][0].update(render_time=None), "expected numbers"),
        (lambda c: c["camera_path"].__setitem__(0, 5), "has no 'camera_to_world'"),
    ],
)
def test_wrong_nerfstudio_files(tmp_path, edit, message):
    file = written(tmp_path, "nerfstudio", *make(UPRIGHT))
    change(file, edit)
    with pytest.raises(ValueError, match=message):
        load_path(file)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["frames"][0].update(transform_matrix=[[1, 0, 0, 0]] * 2), "4 rows"),
        (lambda c: c["frames"][0].update(transform_matrix=[[1, 0, 0]] * 4), "expected n x 4"),
        (lambda c: c["frames"][2].update(transform_matrix=np.diag([1, 1, -1, 1]).tolist()), "a mirror image"),
        (lambda c: [frame.pop("fl_x") for frame in c["frames"]], "camera_angle_x"),
        (lambda c: c.pop("w"), "has no 'w'"),
        (lambda c: c["frames"][0].update(fl_x=-3), "all > 0"),
        (lambda c: c.update(frames={}), "at least one camera"),
        (lambda c: c.pop("frames"), "none of camera_path, frames, frame0"),
    ],
)
def test_wrong_transforms(tmp_path, edit, message):
    file = written(tmp_path, "transforms", *make(UPRIGHT))
    change(file, edit)
    with pytest.raises(ValueError, match=message):
        load_path(file)


def test_transforms_with_an_angle_and_no_times(tmp_path):
    frames = [{"file_path": "a", "transform_matrix": np.eye(4).tolist()}]
    (tmp_path / "a.json").write_text(json.dumps({"camera_angle_x": math.pi / 2, "frames": frames}))
    path = load_path(tmp_path / "a.json")
    assert path.cameras(1, 100, 50).intrinsics[0, 0, 0] == pytest.approx(50)
    assert path.times(3).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [("[1 0 0 0]", "four rows"), ("[1 0 0 0] [0 1 0 0] [0 0 1 0] [0 0 x 1]", "four rows"), (5, "four rows")],
)
def test_wrong_recammaster_files(tmp_path, text, message):
    (tmp_path / "a.json").write_text(json.dumps({"frame0": {"cam01": text}}))
    with pytest.raises(ValueError, match=message):
        load_path(tmp_path / "a.json")
    for content in ({"frame0": 5}, {"frame0": {}}):
        (tmp_path / "a.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match="0 cameras"):
            load_path(tmp_path / "a.json")


def test_wrong_vista4d_files(tmp_path):
    file, pose = tmp_path / "a.npz", np.eye(4)[None]
    cases = [
        ({"cam_c2w": pose}, "has no 'intrinsics'"),
        ({"cam_c2w": pose, "intrinsics": np.ones((2, 4))}, "expected 1 x 4"),
        ({"cam_c2w": pose, "intrinsics": -np.ones((1, 4))}, "not above 0"),
        ({"cam_c2w": 2 * pose, "intrinsics": np.ones((1, 4))}, "away from a rotation"),
        ({"cam_c2w": pose * np.nan, "intrinsics": np.ones((1, 4))}, "finite"),
        ({"cam_c2w": np.zeros((0, 4, 4)), "intrinsics": np.ones((0, 4))}, "no cameras"),
        ({"cam_c2w": np.array([{}], dtype=object), "intrinsics": np.ones((1, 4))}, "not a readable camera npz"),
    ]
    for content, message in cases:
        np.savez(file, **content)
        with pytest.raises(ValueError, match=message):
            load_path(file)


def test_wrong_trajectorycrafter_files(tmp_path):
    file = tmp_path / "a.txt"
    for text, message in [("1 2\n3 4", "2 lines"), ("a\nb\nc", "not lines of numbers"), ("0 nan\n0\n0", "finite")]:
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            load_path(file)


@pytest.mark.parametrize(
    ("cameras", "images", "message"),
    [
        ("1 OPENCV 10 10 5 5 5 5 0.1 0 0 0", "", "no distortion"),
        ("1 FISHEYE 10 10 5", "", "camera model 'FISHEYE'"),
        ("1 PINHOLE 10 10 5", "", "4\\?"),
        ("1 PINHOLE ten 10 5 5 5 5", "", "expected CAMERA_ID"),
        ("1 PINHOLE 10 10 -5 5 5 5", "", "above 0"),
        ("1 PINHOLE 10 10 5 5 5 5", "1 1 0 0 0 0 0 0 2 a.png", "has camera 2"),
        ("1 PINHOLE 10 10 5 5 5 5", "1 0 0 0 0 0 0 0 1 a.png", "quaternion is zero"),
        ("1 PINHOLE 10 10 5 5 5 5", "1 1 0 0 a.png", "expected ID, QW"),
        ("1 PINHOLE 10 10 5 5 5 5", "# none", "no images"),
    ],
)
def test_wrong_colmap_models(tmp_path, cameras, images, message):
    (tmp_path / "cameras.txt").write_text(cameras + "\n")
    (tmp_path / "images.txt").write_text(images + "\n\n")
    with pytest.raises(ValueError, match=message):
        load_path(tmp_path)


def test_a_binary_model_that_promises_more_than_it_has(tmp_path):
    folder = written(tmp_path, "colmap-binary", *make(UPRIGHT))
    whole = (folder / "images.bin").read_bytes()
    (folder / "images.bin").write_bytes(struct.pack("<Q", 10**12) + whole[8:])
    with pytest.raises(ValueError, match="in an entry"):
        load_path(folder)
    (folder / "images.bin").unlink()
    with pytest.raises(ValueError, match=r"holds no images\.txt"):
        load_path(folder)
