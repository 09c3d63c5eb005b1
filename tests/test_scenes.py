import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lrm4d.cameras import Cameras, convert_opengl_opencv, intrinsics_from_fov, invert_rigid, project
from lrm4d.scenes import PAPER_PROTOCOLS, SceneError, load_scene, render_path, save_scene
from lrm4d.scenes.pictures import alpha_from_white
from lrm4d.scenes.protocols import make_protocols
from lrm4d.trajectories import cameras_around
from lrm4d.views import Views

SHARED = Path(os.environ.get("LRM4D_SHARED", Path(__file__).parents[1] / "../shared"))
NAMES = ("front", "left", "back", "right", "rotl", "rotr", "rand0", "rand1")
needs_shared = pytest.mark.skipif(not (SHARED / "scenes/128").is_dir(), reason="the data of ../shared is not here")


def random_views(count, width=16, height=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    azimuths = torch.rand(count, generator=generator) * 360
    cameras = cameras_around(
        azimuths, torch.full((count,), 20.0), torch.full((count,), 2.7), 49.1, width=width, height=height
    )
    levels = torch.randint(0, 256, (count, 4, height, width), generator=generator) / 255
    return Views(levels[:, :3], levels[:, 3:], cameras, torch.linspace(0, 1, count))


def write_scene(folder, moments=4, names=NAMES):
    views = random_views(moments * len(names))
    times = torch.linspace(0, 1, moments).repeat_interleave(len(names))
    views = Views(views.images, views.alphas, views.cameras, times)
    paths = [f"images/{name}_{moment:03d}.png" for moment in range(moments) for name in names]
    save_scene(folder, views, paths)
    return views, paths


@pytest.fixture
def folder(tmp_path):
    write_scene(tmp_path / "thing")
    return tmp_path / "thing"


def edit(folder, change, name="transforms.json"):
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


def matrix_of(content, index):
    return np.array(content["frames"][index]["transform_matrix"])


def change_matrices(folder, function):
    def change(content):
        for i in range(len(content["frames"])):
            content["frames"][i]["transform_matrix"] = function(matrix_of(content, i)).tolist()

    edit(folder, change)


def test_a_saved_scene_comes_back(tmp_path):
    views, paths = write_scene(tmp_path)
    scene = load_scene(tmp_path)
    back = scene.views(paths[::-1])
    assert scene.file_paths == tuple(paths)
    torch.testing.assert_close(back.images, views.images.flip(0), atol=1e-6, rtol=0)
    torch.testing.assert_close(back.alphas, views.alphas.flip(0), atol=1e-6, rtol=0)
    torch.testing.assert_close(back.times, views.times.flip(0))
    torch.testing.assert_close(back.cameras.camera_to_world, views.cameras.camera_to_world.flip(0))
    torch.testing.assert_close(back.cameras.intrinsics, views.cameras.intrinsics.flip(0))
    assert {path.name for path in tmp_path.iterdir()} == {"images", "transforms.json"}
    assert len(list((tmp_path / "images").iterdir())) == len(paths)


def test_axes_are_opengl_in_the_file_and_opencv_in_memory(tmp_path):
    # A camera at (0, -2.7, 0) that looks along +y with z up: OpenGL's columns are right, up, back.
    content = {
        "fl_x": 20.0, "w": 16, "h": 12,
        "frames": [{"file_path": "a.png", "time": 0, "transform_matrix": [[1, 0, 0, 0], [0, 0, -1, -2.7], [0, 1, 0, 0],
                                                                         [0, 0, 0, 1]]}],
    }  # fmt: skip
    Image.new("RGBA", (16, 12)).save(tmp_path / "a.png")
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    camera = load_scene(tmp_path).frames[0].camera
    pixels, depth = project(camera, torch.tensor([0.27, 0.0, 0.54]))
    assert depth.item() == pytest.approx(2.7)
    torch.testing.assert_close(pixels, torch.tensor([8 + 2.0, 6 - 4.0]), atol=1e-5, rtol=0)


def test_dnerf_form_has_splits_an_angle_and_no_extensions(tmp_path):
    views = random_views(6, width=20, height=10)
    for split, rows in {"train": [0, 1, 2], "test": [3, 4], "val": [5]}.items():
        frames = []
        for i in rows:
            rgba = (torch.cat([views.images[i], views.alphas[i]]) * 255).round().byte().permute(1, 2, 0).numpy()
            (tmp_path / split).mkdir(exist_ok=True)
            Image.fromarray(rgba).save(tmp_path / split / f"r_{i:03d}.png")
            matrix = convert_opengl_opencv(views.cameras.camera_to_world[i]).tolist()
            frames.append({"file_path": f"./{split}/r_{i:03d}", "time": i / 5, "transform_matrix": matrix})
        content = {"camera_angle_x": math.radians(49.1), "frames": frames}
        (tmp_path / f"transforms_{split}.json").write_text(json.dumps(content))
    scene = load_scene(tmp_path)
    inputs, targets = scene.protocol("split")
    assert inputs == ("train/r_000.png", "train/r_001.png", "train/r_002.png")
    assert targets == ("test/r_003.png", "test/r_004.png")
    back = scene.views(["./train/r_001", "val/r_005"])
    torch.testing.assert_close(back.images, views.images[[1, 5]], atol=1e-6, rtol=0)
    torch.testing.assert_close(back.cameras.intrinsics[0], intrinsics_from_fov(math.radians(49.1), 20, 10))
    assert back.times.tolist() == pytest.approx([0.2, 1.0])


def test_pictures_without_alpha_are_opaque_unless_white_is_said_to_be_background(folder):
    pixels = np.full((12, 16, 3), 255, dtype=np.uint8)
    pixels[3:6, 4:9] = (200, 255, 255)
    pixels[0, 0] = 251  # what JPEG does to white
    Image.fromarray(pixels).save(folder / "images/front_000.png")
    scene = load_scene(folder)
    assert scene.views(["images/front_000.png"]).alphas.min() == 1
    alphas = scene.views(["images/front_000.png"], white_background=True).alphas[0, 0]
    expected = torch.zeros(12, 16)
    expected[3:6, 4:9] = 1
    torch.testing.assert_close(alphas, expected)
    torch.testing.assert_close(alpha_from_white(torch.ones(2, 3, 1, 1)), torch.zeros(2, 1, 1, 1))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "CMYK"])
def test_pictures_of_any_8_bit_kind_are_read(folder, mode):
    extension = "jpg" if mode == "CMYK" else "png"
    edit(folder, lambda content: content["frames"][0].update(file_path=f"a.{extension}"))
    Image.new("RGB", (16, 12), (255, 255, 255)).convert(mode).save(folder / f"a.{extension}")
    views = load_scene(folder).views([f"a.{extension}"])
    assert views.images.min() > 0.98 and views.alphas.min() == 1


def test_protocols_are_those_of_the_paper_without_inputs_among_targets(folder):
    scene = load_scene(folder)
    assert list(scene.protocols) == list(PAPER_PROTOCOLS)
    inputs, targets = scene.protocol("alternating_canonical")
    assert inputs == tuple(f"images/{name}_{i:03d}.png" for i, name in enumerate(NAMES[:4]))
    assert len(targets) == 4 * 5 - 4 and not set(inputs) & set(targets)
    inputs, targets = scene.protocol("frame_interpolation")
    assert inputs == tuple(f"images/{name}.png" for name in ("front_000", "back_000", "left_002", "right_002"))
    assert len(targets) == 4 * 5 - 4
    inputs, targets = scene.protocol("two_rotating")
    assert [Path(path).stem for path in inputs] == ["rotr_000", "rotl_001", "rotr_002", "rotl_003"]
    assert {Path(path).stem.split("_")[0] for path in targets} == {*NAMES[:4], "rand1"}
    assert scene.protocol("random")[0] == tuple(f"images/rand0_{i:03d}.png" for i in range(4))


def test_a_protocol_is_made_only_where_its_views_are(tmp_path):
    write_scene(tmp_path, names=("front", "left", "back", "right", "rand1", "rand0"))
    assert list(load_scene(tmp_path).protocols) == ["alternating_canonical", "frame_interpolation", "random"]


@needs_shared
def test_made_protocols_equal_those_that_come_with_real_scenes():
    folders = sorted((SHARED / "scenes/128").iterdir())[:3]
    assert folders
    for folder in folders:
        scene = load_scene(folder)
        written = json.loads((folder / "protocols.json").read_text())
        made = make_protocols(scene.frames)
        assert {name: {"inputs": list(pair[0]), "targets": list(pair[1])} for name, pair in made.items()} == written
        assert scene.views(scene.protocol("random")[0]).alphas.mean() < 0.5


def test_protocols_file_wins_and_is_checked(folder):
    own = {"mine": {"inputs": ["./images/front_000"], "targets": ["images/left_000.png"]}}
    (folder / "protocols.json").write_text(json.dumps(own))
    scene = load_scene(folder)
    assert scene.protocol("mine") == (("images/front_000.png",), ("images/left_000.png",))
    with pytest.raises(ValueError, match=r"no protocol 'min'; this scene has: alternating_canonical, .*mine"):
        scene.protocol("min")
    own["mine"]["inputs"].append("images/nobody_000.png")
    own["empty"] = {"inputs": [], "targets": ["images/left_000.png"]}
    (folder / "protocols.json").write_text(json.dumps(own))
    with pytest.raises(SceneError) as caught:
        load_scene(folder)
    assert caught.value.path == folder / "protocols.json" and len(caught.value.problems) == 2
    assert "protocol 'mine': 'images/nobody_000.png' of its inputs is not a frame" in str(caught.value)
    assert "protocol 'empty': 'inputs' is []" in str(caught.value)


def set_in_frame(index, **values):
    return lambda content: content["frames"][index].update(values)


def scale_rotation(content):
    matrix = matrix_of(content, 3)
    matrix[:3, :3] *= 2
    content["frames"][3]["transform_matrix"] = matrix.tolist()


def shear_rotation(content):
    matrix = matrix_of(content, 3)
    matrix[:3, 0] = matrix[:3, 0] * 0.8 + matrix[:3, 1] * 0.6
    content["frames"][3]["transform_matrix"] = matrix.tolist()


def mirror(content):
    matrix = matrix_of(content, 3)
    matrix[:3, 0] *= -1
    content["frames"][3]["transform_matrix"] = matrix.tolist()


def make_nan(content):
    matrix = matrix_of(content, 3)
    matrix[1, 2] = float("nan")
    content["frames"][3]["transform_matrix"] = matrix.tolist()


def drop_times(content):
    for frame in content["frames"]:
        del frame["time"]


def count_frames_as_times(content):
    for i, frame in enumerate(content["frames"]):
        frame["time"] = i


def go_inside(content):
    matrix = matrix_of(content, 3)
    matrix[:3, 3] *= 0.1
    content["frames"][3]["transform_matrix"] = matrix.tolist()


def use_centimetres(content):
    for i in range(len(content["frames"])):
        matrix = matrix_of(content, i)
        matrix[:3, 3] *= 100
        content["frames"][i]["transform_matrix"] = matrix.tolist()


@pytest.mark.parametrize(
    "change, message",
    [
        (set_in_frame(5, file_path="images/gone.png"), "missing image 'images/gone.png'.*drop the frame"),
        (lambda content: content.update(w=17), "wrong size: the picture is 16 x 12 pixels, expected 17 x 12"),
        (scale_rotation, r"frames\[3\] \(images/right_000.png\): not a rotation.*lengths 2, 2, 2"),
        (shear_rotation, r"frames\[3\].*not a rotation.*0\.6 away from square"),
        (mirror, r"frames\[3\].*determinant -1"),
        (make_nan, r"frames\[3\].*nan in row 1, column 2.*drop the frame"),
        (set_in_frame(3, transform_matrix=[[1, 2], [3, 4]]), r"frames\[3\].*expected 4 rows of 4 numbers"),
        (set_in_frame(3, transform_matrix=None), r"frames\[3\].*transform_matrix is None"),
        (drop_times, r"no times: none of the 32 frames.*\"time\" from 0"),
        (lambda content: content["frames"][7].pop("time"), r"frames\[7\] and 0 others have no 'time'"),
        (set_in_frame(2, time="late"), r"frames\[2\]: time is 'late'"),
        (set_in_frame(2, time=float("nan")), r"frames\[2\]: time is nan"),
        (count_frames_as_times, r"outside \[0, 1\] \(the scene's run from 0 to 31\).*\(time - 0\) / 31"),
        (set_in_frame(2, fl_x=99.0), r"mixed intrinsics: 'fl_x' is .* and 99.0 in frames\[2\]"),
        (set_in_frame(2, fl_x=-3), r"'fl_x' of frames\[2\] is -3; expected a number above 0"),
        (lambda content: content.pop("fl_x"), "neither 'fl_x' .* nor 'camera_angle_x'"),
        (lambda content: content.update(k1=0.1), "distorted pictures.*undistort"),
        (lambda content: content.update(camera_model="OPENCV_FISHEYE"), "camera_model is 'OPENCV_FISHEYE'"),
        (go_inside, "images/right_000.png: the camera is inside the object's unit sphere, 0.27"),
        (use_centimetres, r"images/.*the unit sphere is 0\.13 pixels wide from a distance of 270.*Divide"),
        (set_in_frame(4, file_path="./images/front_000.png"), r"frames\[4\] and frames\[0\]: both have the file_path"),
        (lambda content: content.update(frames=[]), r"'frames' is \[\]"),
        (set_in_frame(1, file_path=7), r"frames\[1\]: file_path is 7"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_file_frame_value_and_remedy(folder, change, message):
    load_scene(folder)
    edit(folder, change)
    with pytest.raises(SceneError, match=message) as caught:
        load_scene(folder)
    assert str(folder / "transforms.json") in str(caught.value)


def test_all_problems_come_at_once_but_not_without_end(folder):
    edit(folder, lambda content: [frame.update(transform_matrix=None) for frame in content["frames"]])
    with pytest.raises(SceneError, match=r"(?s)32 problem.*and 24 more") as caught:
        load_scene(folder)
    assert len(caught.value.problems) == 32


FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


@pytest.mark.parametrize(
    "function, advice",
    [
        (lambda c2w: c2w @ FLIP, "look like OpenCV axes .* negate the second and third column"),
        (np.linalg.inv, "look like world-to-camera matrices: invert every"),
        (lambda c2w: np.linalg.inv(c2w @ FLIP), "world-to-camera matrices in OpenCV axes: invert every"),
    ],
)
def test_wrong_axes_are_recognized_and_the_advice_mends_them(folder, function, advice):
    change_matrices(folder, function)
    with pytest.raises(SceneError, match=f"misses the unit sphere.*{advice}"):
        load_scene(folder)


def test_an_object_far_from_the_origin_is_told_apart_from_wrong_axes(folder):
    change_matrices(folder, lambda c2w: np.array([[1, 0, 0, 90], [0, 1, 0, 90], [0, 0, 1, 0], [0, 0, 0, 1]]) @ c2w)
    with pytest.raises(SceneError, match="Neither flipped axes nor inverted matrices"):
        load_scene(folder)
    assert len(load_scene(folder, object_in_unit_sphere=False).frames) == 32


def test_broken_files_are_named(folder, tmp_path):
    scene = load_scene(folder)
    picture = folder / "images/front_000.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 4), dtype=np.uint8)).save(picture)
    picture.write_bytes(picture.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"front_000\.png: cannot be decoded"):
        scene.views(["images/left_000.png", "images/front_000.png"])
    picture.write_bytes(b"")
    with pytest.raises(ValueError, match=r"front_000\.png: cannot be read as a picture"):
        load_scene(folder)
    Image.fromarray(np.zeros((12, 16), dtype=np.uint16)).save(picture)
    with pytest.raises(ValueError, match=r"front_000\.png.*only 8 bits"):
        load_scene(folder).views(["images/front_000.png"])
    (folder / "transforms.json").write_text('{"frames": [1, 2')
    with pytest.raises(SceneError, match=r"transforms\.json.*\n.*broken JSON at line 1, column 17"):
        load_scene(folder)
    (folder / "transforms.json").write_text("[]")
    with pytest.raises(SceneError, match="holds a list; expected a JSON object"):
        load_scene(folder)
    with pytest.raises(ValueError, match=r"no transforms\.json"):
        load_scene(tmp_path)
    with pytest.raises(ValueError, match="there is no such folder"):
        load_scene(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "{", "null", "3", '"x"', '{"frames": 3}', '{"frames": [3]}', '{"frames": [{}]}'])
def test_garbage_is_a_scene_error(tmp_path, text):
    (tmp_path / "transforms.json").write_text(text)
    with pytest.raises(SceneError):
        load_scene(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-3, 3) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    write_scene(folder, moments=1, names=("front", "left"))
    return folder


@settings(max_examples=150, deadline=None)
@given(
    key=st.sampled_from(["file_path", "time", "transform_matrix", "fl_x", "k1", "view", "cx", "w", "frames"]),
    in_frame=st.booleans(),
    value=json_values,
)  # fmt: skip
def test_any_value_anywhere_is_read_or_refused_with_a_scene_error(shared_folder, key, in_frame, value):
    path = shared_folder / "transforms.json"
    original = path.read_text()
    content = json.loads(original)
    (content["frames"][1] if in_frame else content)[key] = value
    try:
        path.write_text(json.dumps(content))
        assert len(load_scene(shared_folder).frames) == 2
    except SceneError as error:
        assert error.problems
    finally:
        path.write_text(original)


def test_unknown_frames_are_answered_with_near_ones(folder):
    with pytest.raises(ValueError, match=r"'images/fron_000.png'.*32 frames.*images/front_000.png"):
        load_scene(folder).views(["images/fron_000.png"])
    with pytest.raises(ValueError, match="at least one file_path"):
        load_scene(folder).views([])


def test_nothing_is_written_outside_of_the_folder(tmp_path):
    assert render_path(tmp_path, "./images/a.jpg") == tmp_path / "images/a.png"
    assert render_path(tmp_path, "train/r_000") == tmp_path / "train/r_000.png"
    for bad in ("../a.png", "/a.png", "images/../../a.png", "..\\a.png", "C:/a.png"):
        with pytest.raises(ValueError, match="leaves the scene's folder"):
            render_path(tmp_path, bad)
    with pytest.raises(ValueError, match="leaves the scene's folder"):
        save_scene(tmp_path / "in", random_views(1), ["../a.png"])
    assert not list(tmp_path.iterdir())


def test_saving_refuses_what_the_file_cannot_hold(tmp_path):
    views = random_views(2)
    with pytest.raises(ValueError, match="2 views and 1 different file_paths"):
        save_scene(tmp_path, views, ["a.png", "./a.png"])
    lens = views.cameras.intrinsics * torch.tensor([1.0, 2.0])[:, None, None]
    cameras = Cameras(views.cameras.camera_to_world, lens, 16, 12)
    with pytest.raises(ValueError, match="mixed intrinsics"):
        save_scene(tmp_path, Views(views.images, views.alphas, cameras, views.times), ["a.png", "b.png"])


def test_world_to_camera_is_the_inverse_of_what_the_file_says(folder):
    cameras = load_scene(folder).cameras(load_scene(folder).file_paths)
    eye = cameras.camera_to_world @ invert_rigid(cameras.camera_to_world)
    torch.testing.assert_close(eye, torch.eye(4).expand_as(eye), atol=1e-5, rtol=0)
