"""The judge of made views, on a striped ball whose pictures and depths are known in closed form."""

import json

import pytest
import torch
from grid_scenes import see_ball

from eval import generation
from eval.fans import load_fan
from eval.filling import FILLS, score_agreement, score_regions, why_no_telea
from eval.generation_report import draw_overview, to_markdown
from lrm4d.cameras import Cameras
from lrm4d.generation.depth import save_geometry
from lrm4d.generation.geometry import Geometry
from lrm4d.generation.grid import start_grid
from lrm4d.generation.network import InpaintingNetwork, NanoConfig, save_network
from lrm4d.scenes import save_scene
from lrm4d.trajectories import cameras_around
from lrm4d.views import Views

pytestmark = pytest.mark.usefixtures("one_thread")

ANGLES = {"front": 0.0, "turn-30": -30.0, "turn+15": 15.0}
SIZE, COUNT = 32, 3
TINY = NanoConfig(width=24, heads=2, layers=1, patch=8, words=1, text_width=8, frequencies=16)


def write_fan(folder, count=COUNT):
    times = torch.linspace(0, 1, count)
    zero, azimuths = torch.zeros(len(ANGLES)), torch.tensor(list(ANGLES.values()))
    around = cameras_around(azimuths, zero, zero + 2.7, 49.1, SIZE, SIZE)
    cameras = around.expand(count, len(ANGLES))
    images, depths, hit = see_ball(cameras, times)
    names = [f"images/{name}_{moment:03}.png" for moment in range(count) for name in ANGLES]
    flat = Views(images.flatten(0, 1), hit.flatten(0, 1).float(), cameras.reshape(-1), times.repeat_interleave(3))
    save_scene(folder, flat, names)
    file = folder / "transforms.json"
    content = json.loads(file.read_text())
    for index, frame in enumerate(content["frames"]):
        frame |= {"view": list(ANGLES)[index % 3], "frame": index // 3}
    file.write_text(json.dumps(content))
    (folder / "depth").mkdir()
    for view, name in enumerate(ANGLES):
        still = cameras[:, view]
        own = Cameras(still.camera_to_world, still.intrinsics, SIZE, SIZE)
        save_geometry(folder / "depth" / f"{name}.npz", Geometry(depths[:, view], own, hit[:, view]))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_fan(tmp_path_factory.mktemp("fans") / "ball")


@pytest.fixture(scope="module")
def fan(folder):
    return load_fan(folder, ("turn-30", "turn+15"))


@pytest.fixture(scope="module")
def grid(fan):
    return start_grid(fan.images[:, 0], fan.geometries[0], fan.cameras[:, 1:], fan.times)


def test_a_fan_is_read_with_its_depths(fan, folder):
    assert fan.names == ("front", "turn-30", "turn+15") and fan.angles == [0, 30, 15]
    assert fan.images.shape == (COUNT, 3, 3, SIZE, SIZE) and sorted(fan.geometries) == [0, 1, 2]
    assert fan.images[..., 0, 0].eq(1).all()  # on white
    two = load_fan(folder, ("turn+15",), moments=2)
    assert two.times.tolist() == [0, 1]
    assert two.images[1, 1].equal(fan.images[2, 2])
    assert two.geometries[1].depths.equal(fan.geometries[2].depths[[0, 2]])


def test_a_fan_without_view_or_depth_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match=r"no view turn-99.*front"):
        load_fan(folder, ("turn-99",))
    other = write_fan(tmp_path / "other")
    short = load_fan(other, ("turn+15",)).geometries[0][:2]
    save_geometry(other / "depth" / "front.npz", short)
    with pytest.raises(ValueError, match=r"front\.npz: 2 depths for 3"):
        load_fan(other, ("turn+15",))
    (other / "depth" / "front.npz").unlink()
    with pytest.raises(ValueError, match=r"front\.npz"):
        load_fan(other, ("turn+15",))


def test_fills_keep_what_is_seen(grid, fan):
    if why_no_telea():
        pytest.skip(why_no_telea())
    for name in ("warp on white", "Telea"):
        made = FILLS[name](grid)
        seen = grid.known.expand_as(made)
        assert (made - grid.images)[seen].abs().max() <= 0.5 / 255 + 1e-6
    white = FILLS["warp on white"](grid)
    assert white[~grid.known.expand_as(white)].eq(1).all()
    # Between the ball and the rim of white, neither black nor untouched.
    telea = FILLS["Telea"](grid)
    holes = ~grid.known[:, 1:] & fan.objects[:, 1:]
    assert (telea[:, 1:] < 0.99).any(2, keepdim=True)[holes].float().mean() > 0.5
    assert FILLS["nearest view"](grid)[:, 2].equal(fan.images[:, 0])


def test_an_error_is_counted_where_it_is(grid, fan):
    holes = ~grid.known
    assert holes[:, 1:].any() and not holes[:, 0].any()
    for region, inside in (("holes", holes), ("seen", ~holes), ("object", holes & fan.objects)):
        made = fan.images + 0.1 * inside
        scores = score_regions(made, grid.known, fan)["all"]
        assert scores[f"psnr_{region}"] == pytest.approx(20.0, abs=1e-3)
        other = "seen" if region != "seen" else "holes"
        assert scores[f"psnr_{other}"] == 100.0
        assert scores[f"ssim_{region}"] < 0.99 and scores["psnr"] > 20
    perfect = score_regions(fan.images, grid.known, fan)["all"]
    assert perfect["ssim_holes"] == pytest.approx(1) and perfect["psnr_object"] == 100


def test_scores_are_told_by_angle(grid, fan):
    made = fan.images.clone()
    made[:, 1] += 0.1  # the view at 30 degrees alone
    scores = score_regions(made, grid.known, fan)
    assert list(scores) == ["all", "15", "30"]
    assert scores["15"]["psnr_holes"] == 100 and scores["30"]["psnr_holes"] == pytest.approx(20, abs=1e-3)
    assert scores["all"]["psnr_holes"] == pytest.approx(60, abs=1e-3)


def test_agreement_is_the_difference_of_what_two_views_say_of_a_place(grid, fan):
    plain = torch.full_like(fan.images, 0.5)
    plain[:, 1] = 0.6
    scores = score_agreement(plain, grid.known, fan)
    assert scores["agreement"] == pytest.approx(20, abs=1e-3)
    noise = torch.rand(fan.images.shape, generator=torch.Generator().manual_seed(0))
    truth = score_agreement(fan.images, grid.known, fan)["agreement"]
    assert truth > score_agreement(noise, grid.known, fan)["agreement"] + 5


def test_agreement_in_holes_does_not_look_elsewhere(grid, fan):
    made = torch.where(grid.known, torch.rand_like(fan.images), 0.5)
    scores = score_agreement(made, grid.known, fan)
    # Pictures are warped between pixels, so a hole's rim takes a little of what is beside it.
    assert scores["agreement"] < 20
    assert "agreement_holes" in scores and (scores["agreement_holes"] or 100) > scores["agreement"] + 10


@pytest.fixture(scope="module")
def inpainter(tmp_path_factory):
    torch.manual_seed(0)
    network = InpaintingNetwork(TINY)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    path = tmp_path_factory.mktemp("weights") / "tiny"
    save_network(network, path)
    return path


def command(folder, inpainter, output, *more):
    line = ["--scenes", folder, "--inpainter", inpainter, "--views", "turn-30,turn+15", "--moments", 2, "--steps", 1]
    return generation.main([str(word) for word in (*line, "-o", output, "--device", "cpu", *more)])


def test_the_command_writes_tables_and_goes_on(folder, inpainter, tmp_path, capsys):
    more = ("--presets", "easycreator,full4d", "--tune", 1, "--tuning-steps", 1)
    assert command(folder, inpainter, tmp_path / "out", *more) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    methods = list(report["mean"]["all"])
    assert methods[-5:] == ["easycreator", "full4d", "easycreator, K = 0", "easycreator, tuned", "truth"]
    assert "warp on white" in methods and set(report["mean"]) == {"all", "15", "30"}
    scores = report["mean"]["all"]["easycreator"]
    assert {"psnr_holes", "ssim_object", "psnr_seen", "agreement", "seconds"} <= set(scores)
    assert report["mean"]["all"]["easycreator, tuned"]["psnr_holes"] is not None
    assert "## Tuning, on ball" in (tmp_path / "out" / "report.md").read_text()
    for file in ("sheet.png", "sheets/ball.png", "tuned/ball/lora.safetensors"):
        assert (tmp_path / "out" / file).is_file()
    marked = tmp_path / "out" / "scenes" / "ball.json"
    content = json.loads(marked.read_text())
    content["scores"]["all"]["full4d"]["psnr_holes"] = 12.34
    marked.write_text(json.dumps(content))
    assert command(folder, inpainter, tmp_path / "out", *more) == 0  # nothing is scored again
    assert json.loads((tmp_path / "out" / "report.json").read_text())["mean"]["all"]["full4d"]["psnr_holes"] == 12.34
    assert command(folder, inpainter, tmp_path / "out", "--presets", "full4d") == 2
    assert "this run is" in capsys.readouterr().err


def test_the_command_refuses_what_is_not_there(folder, inpainter, tmp_path, capsys):
    assert command(folder, inpainter, tmp_path / "out", "--presets", "nonsense") == 2
    assert "no preset 'nonsense'" in capsys.readouterr().err
    assert command(tmp_path, inpainter, tmp_path / "out") == 2
    assert "no scene here" in capsys.readouterr().err


def test_the_tables_leave_out_what_only_some_scenes_have():
    scores = {"psnr": 10.0, "psnr_holes": 11.0, "psnr_object": 9.0}
    one = {"all": {"a": scores, "a, tuned": scores}, "20": {"a": scores, "a, tuned": scores}}
    scenes = {"x": one, "y": {group: {"a": methods["a"]} for group, methods in one.items()}}
    text = to_markdown(scenes, {"note": "said"}, ", tuned")
    before, after = text.split("## Tuning, on x")
    assert "a, tuned" not in before and "| a, tuned | object | 9.00 | 9.00 |" in after
    strip = torch.arange(4.0).repeat_interleave(4)[None, :, None].expand(3, 16, 4) / 4
    sheet = draw_overview({"x": strip, "y": strip}, {"x": ["a", "b", "truth"], "y": ["a", "b", "truth"]})
    assert sheet.shape[0] == 3
