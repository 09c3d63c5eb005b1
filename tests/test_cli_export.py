import json
import re
from dataclasses import replace

import pytest
import torch
from moving_scene import make_gaussians, write_moving_scene

from lrm4d.cli import run
from lrm4d.export.gltf import read_gltf
from lrm4d.export.ply import read_ply
from lrm4d.export.splatv import read_splatv


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What `lrm4d reconstruct` leaves: a folder with a scene in it."""
    folder = tmp_path_factory.mktemp("reconstructed")
    make_gaussians().save(folder / "scene.safetensors", {"scene": "Blobs", "width": 32, "height": 24})
    return folder


def run_for_json(capsys, *arguments) -> dict:
    code = run(["export", *map(str, arguments), "--json"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return json.loads(printed.out)


def run_for_error(capsys, *arguments) -> str:
    code = run(["export", *map(str, arguments)])
    printed = capsys.readouterr()
    assert code == 2 and printed.out == ""
    assert printed.err.startswith("error: ") and "Traceback" not in printed.err
    return printed.err


def test_several_formats_at_once_hold_the_scene(capsys, tmp_path, folder):
    paths = {kind: tmp_path / f"a.{kind}" for kind in ("ply", "splatv", "glb")}
    report = run_for_json(
        capsys, folder, "--ply", paths["ply"], "--time", 0.25, "--splatv", paths["splatv"], "--gltf", paths["glb"]
    )
    assert report["scene"] == str(folder / "scene.safetensors") and report["gaussians"] == 60
    by_format = {result["format"]: result for result in report["files"]}
    assert {kind: result["bytes"] for kind, result in by_format.items()} == {
        "ply": paths["ply"].stat().st_size,
        "splatv": paths["splatv"].stat().st_size,
        "gltf": paths["glb"].stat().st_size,
    }
    moving = make_gaussians().to_moving()
    moment = moving.visible_at(0.25)
    assert by_format["ply"]["gaussians"] == by_format["gltf"]["gaussians"] == len(moment.means) == 60
    for read in (read_ply(paths["ply"]), read_gltf(paths["glb"])):
        torch.testing.assert_close(read.means, moment.means, rtol=2e-3, atol=1e-3)  # a scene is saved in halves
        torch.testing.assert_close(read.opacities, moment.opacities, rtol=2e-3, atol=1e-3)
    torch.testing.assert_close(read_splatv(paths["splatv"]).velocities, moving.velocities, rtol=2e-2, atol=2e-3)


def test_a_page_has_the_scene_s_name_or_the_title_and_the_inputs(capsys, tmp_path, folder):
    page, inputs = tmp_path / "a.html", tmp_path / "inputs"
    inputs.mkdir()
    write_moving_scene(inputs)
    run_for_json(capsys, folder / "scene.safetensors", "--html", page)
    assert "<title>Blobs" in page.read_text()
    options = ("--views", inputs, "--protocol", "halves")
    report = run_for_json(capsys, folder, "--html", page, "--title", "Two & more", *options)
    assert "<title>Two &amp; more" in page.read_text() and "from 3 pictures" in page.read_text()
    assert report["files"][0]["gaussians"] == 60
    run_for_json(capsys, folder, "--splatv", tmp_path / "a.splatv", *options)
    assert (tmp_path / "a.splatv").read_bytes().count(b"img_name") == 3


def test_a_folder_gets_one_ply_a_time(capsys, tmp_path, folder):
    report = run_for_json(capsys, folder, "--ply", tmp_path / "frames", "--frames", 3)
    files = sorted((tmp_path / "frames").glob("*.ply"))
    assert report["files"][0]["files"] == 3 == len(files)
    assert report["files"][0]["bytes"] == sum(file.stat().st_size for file in files)
    last = make_gaussians().to_moving().visible_at(1.0)
    torch.testing.assert_close(read_ply(files[-1]).means, last.means, rtol=2e-3, atol=2e-3)


def test_the_printed_lines_name_files_and_sizes(capsys, tmp_path, folder):
    assert run(["export", str(folder), "--ply", str(tmp_path / "a.ply"), "--splatv", str(tmp_path / "a.splatv")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r".*scene\.safetensors: 60 Gaussians", lines[0])
    assert re.fullmatch(r"splatv +0\.07 MB +60 Gaussians  .*a\.splatv", lines[1])
    assert re.fullmatch(r"ply +0\.00 MB +60 Gaussians  .*a\.ply", lines[2])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ((), "nothing to write"),
        (("--ply", "a.obj"), "ends in .ply, or a folder"),
        (("--gltf", "a.obj"), r".glb or .gltf"),
        (("--ply", "a.ply", "--frames", "3"), "folder for --ply"),
        (("--html", "a.html", "--frames", "3"), "folder for --ply"),
        (("--ply", "a.ply", "--views", "b"), "hold no cameras"),
        (("--html", "a.html", "--protocol", "b"), "scene folder too"),
        (("--ply", "a.ply", "--title", "b"), "goes with --html"),
        (("--ply", "a.glb", "--gltf", "a.glb"), "one name"),
        (("--ply", "a.ply", "--time", "1.5"), "--time"),
        (("--html", "a.html", "--views", "no_such_folder"), "no_such_folder"),
    ],
)
def test_options_that_make_no_sense_are_refused_and_nothing_is_written(
    capsys, tmp_path, monkeypatch, folder, options, match
):
    monkeypatch.chdir(tmp_path)
    assert match in run_for_error(capsys, folder, *options)
    assert not list(tmp_path.iterdir())


def test_a_scene_that_is_none_is_refused(capsys, tmp_path):
    assert "scene.safetensors: no such file" in run_for_error(capsys, tmp_path, "--ply", tmp_path / "a.ply")
    (tmp_path / "scene.safetensors").write_bytes(b"no scene")
    assert "scene.safetensors" in run_for_error(capsys, tmp_path, "--ply", tmp_path / "a.ply")
    assert not (tmp_path / "a.ply").exists()


def test_a_scene_of_which_nothing_can_be_seen_is_refused(capsys, tmp_path):
    gaussians = make_gaussians()
    replace(gaussians, opacities=torch.zeros(60)).save(tmp_path / "scene.safetensors")
    for option in ("--html", "--ply", "--splatv"):
        assert "none of its 60 Gaussians" in run_for_error(capsys, tmp_path, option, tmp_path / f"a.{option[2:]}")
    replace(gaussians, time_scales=torch.full((60,), 1e-3), time_means=-torch.ones(60)).save(
        tmp_path / "scene.safetensors"
    )
    assert "another" in run_for_error(capsys, tmp_path, "--gltf", tmp_path / "a.glb", "--time", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["scene.safetensors"]


def test_help_has_examples(capsys):
    assert run(["export", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "Examples:" in printed and "--splatv" in printed and "docs/formats.md" in printed
