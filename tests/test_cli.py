import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from moving_scene import make_gaussians, write_moving_scene, write_tiny_network
from PIL import Image

from lrm4d import __version__
from lrm4d.cli import command, run
from lrm4d.cli.arguments import expand_lists, parse_color, parse_size, repeat_flags
from lrm4d.cli.reconstruct import DEMO_SCENE
from lrm4d.scenes import load_scene
from lrm4d.trajectories import Rig, load_path, parse_path
from lrm4d.video import read_video


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> str:
    return str(write_tiny_network(tmp_path_factory.mktemp("network")))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("moving")
    write_moving_scene(folder)
    return folder


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "scene.safetensors"
    make_gaussians().save(path, {"width": 32, "height": 24, "fov": 40.0, "distance": 3.0})
    return path


def run_for_json(capsys, *arguments) -> dict:
    code = run([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return json.loads(printed.out)


def run_for_error(capsys, *arguments) -> str:
    code = run([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert printed.err.startswith("error: ") and "Traceback" not in printed.err
    return printed.err


# Arguments


WORDS = st.text(alphabet="ab./*@", min_size=1, max_size=4)


@given(st.lists(WORDS, min_size=1), st.lists(WORDS), st.lists(WORDS, min_size=1))
def test_every_value_gets_its_flag(inputs, other, targets):
    flags = ("--inputs", "--targets")
    given_arguments = ["SCENE", "--inputs", *inputs, "--json", *other, "--targets", *targets]
    repeated = repeat_flags(given_arguments, flags)
    assert [repeated[i + 1] for i, word in enumerate(repeated) if word == "--inputs"] == inputs
    assert [repeated[i + 1] for i, word in enumerate(repeated) if word == "--targets"] == targets
    assert repeated[0] == "SCENE"
    start = repeated.index("--json") + 1
    assert repeated[start : start + len(other)] == other


def test_a_flag_without_values_stays_for_the_parser_to_refuse(capsys, scene):
    assert repeat_flags(["--inputs", "--json"], ["--inputs"]) == ["--inputs", "--json"]
    assert "--inputs" in run_for_error(capsys, "reconstruct", scene, "-o", "x", "--inputs")


def test_lists_are_read_from_files(tmp_path):
    (tmp_path / "list.txt").write_text("# inputs\nimages/a.png\n\n  images/b c.png  \r\n")
    assert expand_lists(["x.png", f"@{tmp_path}/list.txt"]) == ["x.png", "images/a.png", "images/b c.png"]
    assert expand_lists(None) is None
    with pytest.raises(ValueError, match=r"@nothing\.txt: no such file"):
        expand_lists(["@nothing.txt"])
    (tmp_path / "empty.txt").write_text("# none\n")
    with pytest.raises(ValueError, match="names nothing"):
        expand_lists([f"@{tmp_path}/empty.txt"])


@pytest.mark.parametrize(("text", "size"), [("64", (64, 64)), ("640x360", (640, 360)), ("12X8", (12, 8))])
def test_sizes(text, size):
    assert parse_size(text, (1, 1)) == size
    assert parse_size(None, (7, 5)) == (7, 5)


@pytest.mark.parametrize("text", ["", "0", "-4", "64x", "x64", "64x0", "1e3", "64 x 64", "999999"])
def test_sizes_that_are_none(text):
    with pytest.raises(ValueError, match="--size"):
        parse_size(text, (1, 1))


def test_colors():
    assert parse_color("white") == [1, 1, 1] and parse_color("Black") == [0, 0, 0]
    assert parse_color("#FF8000") == pytest.approx([1, 128 / 255, 0])
    with pytest.raises(ValueError, match="--background 'pink'"):
        parse_color("pink")


# Commands


def test_reconstruct_does_what_it_says(capsys, scene, network, tmp_path):
    out = tmp_path / "out"
    said = run_for_json(capsys, "reconstruct", scene, "-o", out, "--model", network, "--protocol", "halves", "--json")
    assert said["inputs"] == ["images/a/000.png", "images/a/002.png", "images/a/004.png"]
    assert said["targets"] == ["images/b/001.png", "images/b/003.png", "images/b/005.png"]
    assert all((out / "renders" / target).is_file() for target in said["targets"])
    assert said["renders"] == [str(out / "renders" / target) for target in said["targets"]]
    assert said["scores"]["pictures"] == 3 and said["gaussians"] > 0
    assert said["seconds"]["reconstruct"] > 0
    for name in ("scene", "contact_sheet", "video"):
        assert (tmp_path / "out" / said["files"][name]).is_file()


def test_reconstruct_takes_many_inputs_after_one_flag(capsys, scene, network, tmp_path):
    (tmp_path / "targets.txt").write_text("images/b/005.png\n")
    arguments = ["reconstruct", scene, "-o", tmp_path / "o", "--model", network, "--no-video", "--json"]
    inputs = ["--inputs", "images/b/003.png", scene / "images/a/000.png"]
    said = run_for_json(capsys, *arguments, *inputs, "--targets", f"@{tmp_path}/targets.txt")
    assert said["inputs"] == ["images/b/003.png", "images/a/000.png"]
    assert said["targets"] == ["images/b/005.png"]
    assert "video" not in said["files"]
    said = run_for_json(capsys, *arguments, *inputs)
    assert said["targets"] == [path for path in load_scene(scene).file_paths if path not in said["inputs"]]


def test_reconstruct_says_what_it_chose(capsys, scene, network, tmp_path):
    assert run(["reconstruct", str(scene), "-o", str(tmp_path / "o"), "--model", network, "--no-video"]) == 0
    printed = capsys.readouterr().out
    assert "protocol halves, by default" in printed and "PSNR" in printed and "scene.safetensors" in printed


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--protocol", "nope"], "no protocol 'nope'"),
        (["--inputs", "zz.png"], "no frame has the file_path 'zz.png'"),
        (["--inputs", "@zz.txt"], "no such file"),
        (["--model", "no such model"], "no weights called"),
        (["--device", "tpu"], "device 'tpu'"),
        (["--size", "20"], "multiples of 8"),
        (["--size", "many"], "'--size'"),
        (["--frob"], "frob"),
    ],
)
def test_reconstruct_refuses_in_one_message(capsys, scene, network, tmp_path, extra, message):
    arguments = ["reconstruct", scene, "-o", tmp_path / "out", "--model", network, *extra]
    assert message in run_for_error(capsys, *arguments)
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way_is_an_error(capsys, scene, network, tmp_path):
    (tmp_path / "out").write_text("I am a file")
    run_for_error(capsys, "reconstruct", scene, "-o", tmp_path / "out", "--model", network)
    assert (tmp_path / "out").read_text() == "I am a file"


def test_a_folder_that_is_no_scene_is_an_error(capsys, tmp_path, network):
    assert "transforms.json" in run_for_error(capsys, "reconstruct", tmp_path, "-o", tmp_path / "o")


def test_render_makes_a_video_as_the_inputs_were_seen(capsys, saved, tmp_path):
    said = run_for_json(capsys, "render", saved, "-o", tmp_path / "x.mp4", "--frames", 5, "--fps", 12, "--json")
    assert (said["width"], said["height"], said["trajectory"]) == (32, 24, "orbit")
    frames, rate = read_video(tmp_path / "x.mp4")
    assert frames.shape == (5, 3, 24, 32) and rate == 12


def test_render_makes_pictures_that_are_those_of_the_library(saved, tmp_path):
    arguments = ["--trajectory", "arc:elevation=0", "--times", "0.25", "--size", "16x8", "--fov", "60"]
    options = [*arguments, "--frames", "37", "--background", "black"]
    assert run(["render", str(saved), "-o", str(tmp_path / "frames"), *options]) == 0
    files = sorted((tmp_path / "frames").iterdir())
    assert [file.name for file in files] == [f"frame_{i:02}.png" for i in range(37)]
    cameras = parse_path("arc:elevation=0,fov=60,distance=3").cameras(37, 16, 8)
    expected = make_gaussians().render(cameras, torch.full((37,), 0.25), torch.zeros(3)).image
    for file, picture in zip(files, expected, strict=True):
        with Image.open(file) as image:
            levels = torch.tensor(list(image.convert("RGB").getdata())).reshape(8, 16, 3).permute(2, 0, 1)
        assert (levels - picture * 255).abs().max() < 3, "the file holds half precision"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--trajectory", "spin"], "no move 'spin'"),
        (["--trajectory", "gone.json"], "there is no file gone.json"),
        (["--times", "0:2"], "times '0:2'"),
        (["--frames", "0"], "frames"),
        (["--size", "0"], "--size"),
        (["--background", "pink"], "--background"),
        (["-o", "x.avi"], "x.avi"),
    ],
)
def test_render_refuses_in_one_message(capsys, saved, tmp_path, extra, message):
    assert message in run_for_error(capsys, "render", saved, "--frames", "2", "-o", tmp_path / "x.mp4", *extra)


def test_render_takes_a_file_for_a_path_with_its_cameras_and_times(saved, capsys, tmp_path):
    file, text = tmp_path / "path.json", "orbit:turns=0.2,fov=50; bullet:turns=0.1"
    said = run_for_json(capsys, "path", text, "--scene", saved, "-o", file, "--frames", 5, "--json")
    assert (said["format"], said["frames"]) == ("nerfstudio", 5)
    for trajectory, folder in ((text, "text"), (file, "file")):
        frames = ["--frames", 5] if folder == "text" else []  # a file has as many as it has
        arguments = ["render", saved, "--trajectory", trajectory, "--size", "32x24", "-o", tmp_path / folder]
        fixed = [] if folder == "file" else ["--fov", "20"]  # what the path itself says goes first
        assert run_for_json(capsys, *arguments, *frames, *fixed, "--json")["frames"] == 5
    for one, other in zip(sorted((tmp_path / "text").iterdir()), sorted((tmp_path / "file").iterdir()), strict=True):
        with Image.open(one) as first, Image.open(other) as second:
            pixels = [torch.tensor(list(image.convert("RGB").getdata())).float() for image in (first, second)]
        assert (pixels[0] - pixels[1]).abs().max() < 3, one


def test_path_starts_where_the_scene_says(saved, capsys, tmp_path):
    assert run(["path", "static", "--scene", str(saved), "--frames", "2", "-o", str(tmp_path / "a.npz")]) == 0
    cameras = load_path(tmp_path / "a.npz").cameras(2, 32, 24)
    expected = parse_path("static").cameras(2, 32, 24, Rig(distance=3, fov=40))
    torch.testing.assert_close(cameras.camera_to_world, expected.camera_to_world)
    torch.testing.assert_close(cameras.intrinsics, expected.intrinsics)
    assert "2 cameras as vista4d" in capsys.readouterr().out


@pytest.mark.parametrize("scene_given", [False, True])
def test_path_draws_a_preview(saved, capsys, tmp_path, scene_given):
    arguments = ["path", "orbit:turns=0.3", "-o", tmp_path / "a.png", "--size", "160x120", "--json"]
    said = run_for_json(capsys, *arguments, *(["--scene", saved] if scene_given else []))
    assert (said["width"], said["height"], said["trajectory"]) == (160, 120, "orbit:turns=0.3")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (160, 120)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["orbit", "-o", "a.csv"], "expected one of nerfstudio"),
        (["orbit", "-o", "a.json", "--format", "colmap"], "is written to a folder"),
        (["orbit + ", "-o", "a.png"], "no move ''"),
        (["orbit", "-o", "a.png", "--times", "2"], "times '2'"),
        (["orbit", "-o", "a.png", "--fov", "0"], "fov 0"),
    ],
)
def test_path_refuses_in_one_message(capsys, tmp_path, monkeypatch, extra, message):
    monkeypatch.chdir(tmp_path)
    assert message in run_for_error(capsys, "path", *extra)
    assert not list(tmp_path.iterdir())


def test_render_refuses_what_is_no_scene(capsys, network, tmp_path):
    weights = f"{network}/model.safetensors"
    assert "not a saved scene" in run_for_error(capsys, "render", weights, "-o", tmp_path / "x.mp4")
    assert "no such file" in run_for_error(capsys, "render", tmp_path / "none", "-o", tmp_path / "x.mp4")


def test_info_knows_scenes_networks_and_folders(capsys, saved, network, scene):
    said = run_for_json(capsys, "info", saved, "--json")
    assert said["gaussians"] == 60 and said["origin"]["fov"] == 40
    assert all(-0.5 <= low <= high <= 0.5 for low, high in zip(said["low"], said["high"], strict=True))
    said = run_for_json(capsys, "info", network, "--json")
    assert said["config"]["width"] == 64 and said["types"] == ["BF16"]
    said = run_for_json(capsys, "info", scene, "--json")
    assert (said["frames"], said["moments"], said["width"], said["height"]) == (6, 6, 32, 24)
    assert said["protocols"] == {"halves": "3 inputs, 3 targets"} and said["fov"] == pytest.approx(49.1, abs=1e-3)
    assert "no such file or folder" in run_for_error(capsys, "info", "nothing")
    assert run(["info", str(saved)]) == 0
    assert "gaussians       60" in capsys.readouterr().out


def test_info_counts_a_networks_parameters(capsys, network):
    from lrm4d.reconstruction.pretrained import load_pretrained

    said = run_for_json(capsys, "info", network, "--json")
    assert said["parameters"] == sum(parameter.numel() for parameter in load_pretrained(network).parameters())


def test_doctor_names_what_runs_and_how_to_get_the_rest(capsys):
    findings = {finding["name"]: finding for finding in run_for_json(capsys, "doctor", "--json")["findings"]}
    assert findings["torch"]["found"].startswith(torch.__version__)
    assert findings["rasterizer"]["found"]
    for finding in findings.values():
        assert finding["well"] or finding["remedy"]
    assert run(["doctor"]) == 0
    assert "rasterizer" in capsys.readouterr().out


def test_demo_rebuilds_the_shipped_scene_with_the_shipped_weights(capsys, tmp_path):
    said = run_for_json(capsys, "demo", "-o", tmp_path / "demo", "--seconds", "4", "--json")
    assert said["model"] == "small" and len(said["renders"]) == said["scores"]["pictures"] == 24
    assert said["scores"]["psnr"] > 18 and said["scores"]["psnr_object"] > 12
    frames, _ = read_video(said["files"]["video"])
    assert len(frames) > 24


def test_the_demo_scene_is_small_and_sound():
    files = [path for path in DEMO_SCENE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 600_000
    scene = load_scene(DEMO_SCENE)
    inputs, targets = scene.protocols["demo"]
    assert len(inputs) == len(targets) == 24 and not set(inputs) & set(targets)
    views = scene.views(inputs)
    assert views.images.shape == (24, 3, 128, 128)
    assert torch.equal(views.times, torch.linspace(0, 1, 24))


# The program


def test_help_shows_examples_and_no_command_shows_help(capsys):
    for name in ("reconstruct", "render", "demo", "info"):
        assert run([name, "--help"]) == 0
        printed = capsys.readouterr().out
        assert f"lrm4d {name}" in printed.split("Examples:")[1]
    assert run([]) == 0
    assert "reconstruct" in capsys.readouterr().out


def test_unknown_commands_and_missing_arguments_are_errors(capsys):
    assert "frob" in run_for_error(capsys, "frob")
    assert "scene" in run_for_error(capsys, "reconstruct", "-o", "x")
    assert "output" in run_for_error(capsys, "render", "x.safetensors")


def test_running_out_of_memory_is_said(capsys, monkeypatch):
    def exhausted(*_, **__):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 9 bytes.")

    monkeypatch.setattr(command, "app", exhausted)
    assert "can't allocate memory" in run_for_error(capsys, "demo")


def test_a_mistake_of_ours_is_not_hidden(monkeypatch):
    def mistaken(*_, **__):
        raise RuntimeError("a bug")

    monkeypatch.setattr(command, "app", mistaken)
    with pytest.raises(RuntimeError, match="a bug"):
        run(["demo"])


def test_the_version_does_not_wait_for_pytorch():
    code = (
        "import sys; from lrm4d.cli import run; code = run(['--version']); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"lrm4d {__version__}\n", "")


def test_the_folder_of_a_scene_stands_for_its_file(saved, capsys, tmp_path):
    arguments = ("--trajectory", "static", "--frames", 1, "--size", 16, "--json")
    for name, scene in (("file", saved), ("folder", saved.parent)):
        run_for_json(capsys, "render", scene, "-o", tmp_path / name, *arguments)
    assert (tmp_path / "file" / "frame_0.png").read_bytes() == (tmp_path / "folder" / "frame_0.png").read_bytes()
    told = run_for_json(capsys, "path", "static", "--scene", saved.parent, "-o", tmp_path / "p.json", "--json")
    assert told["frames"] == 72
    assert "no such file" in run_for_error(capsys, "view", tmp_path / "nothing")
