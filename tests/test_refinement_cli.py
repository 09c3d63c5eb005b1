"""lrm4d refine: a saved scene, or none, and its pictures in; what reconstruct writes out."""

import json

import pytest
from moving_scene import make_gaussians, write_moving_scene

from lrm4d.cli import run
from lrm4d.cli.reconstruct import DEMO_SCENE
from lrm4d.gaussians4d import Gaussians4D

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("moving")
    write_moving_scene(folder, 8)
    return folder


def test_a_saved_scene_is_refined_and_written_like_a_reconstruction(tmp_path, capsys, scene):
    make_gaussians().save(tmp_path / "scene.safetensors", {"model": "gone"})
    settings = [word for setting in ("count=60", "nodes=6", "knots=6", "steps=40") for word in ("--set", setting)]
    out = tmp_path / "out"
    line = ["refine", tmp_path / "scene.safetensors", "--views", scene, "--protocol", "halves", "-o", out]
    code = run([str(word) for word in (*line, "--seconds", "20", "--no-video", "--json", *settings)])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    report = json.loads(printed.out)
    assert report["scores"]["psnr"] > 20
    assert report["refinement"]["gaussians_before"] == 60 < report["gaussians"]
    assert (out / "scene.html").is_file() and (out / "contact_sheet.png").is_file()
    assert len(list((out / "renders").rglob("*.png"))) == 4
    assert json.loads((out / "refinement.json").read_text())["steps"][0] > 0
    assert len(Gaussians4D.load(out / "scene.safetensors")) == report["gaussians"]
    assert not list(out.glob("refinement*.safetensors"))


def test_without_a_scene_it_starts_from_scratch(tmp_path, capsys, scene):
    line = ["refine", "--views", scene, "--seconds", "2", "--no-video", "-o", tmp_path / "out"]
    assert run([str(word) for word in line]) == 0
    printed = capsys.readouterr().out
    assert "steps in" in printed and "corrected" not in printed and "PSNR" in printed


def test_an_unknown_setting_is_named(tmp_path, capsys, scene):
    line = ["refine", "--views", scene, "-o", tmp_path / "out", "--set", "node=3"]
    assert run([str(word) for word in line]) == 2
    assert "node" in capsys.readouterr().err


def test_reconstruct_corrects_what_the_network_made(tmp_path, capsys):
    line = ["reconstruct", str(DEMO_SCENE), "--protocol", "demo", "--size", "64", "--no-video", "--json"]
    reports = []
    for option in ([], ["--correct"]):
        assert run([*line, *option, "-o", str(tmp_path / f"out{len(option)}")]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    alone, corrected = (report["scores"]["psnr"] for report in reports)
    assert corrected > alone + 0.1 and "refine" in reports[1]["seconds"]


def test_what_is_corrected_is_not_corrected_again(tmp_path, capsys, scene):
    """Unless that is said."""
    small = ("steps=1", "nodes=6", "knots=6")
    new, old = {"model": "nano"}, {"model": "nano", "refined": "Correction"}
    for extra, chosen, asked in ((new, small, "nano"), (old, small, ""), (old, (*small, "corrector=nano"), "nano")):
        make_gaussians().save(tmp_path / "scene.safetensors", extra)
        settings = [word for setting in chosen for word in ("--set", setting)]
        line = ["refine", tmp_path / "scene.safetensors", "--views", scene, "-o", tmp_path / "out", "--no-video"]
        assert run([str(word) for word in (*line, "--json", *settings)]) == 0
        assert json.loads(capsys.readouterr().out)["refinement"]["config"]["corrector"] == asked
