"""The chain at a tiny size with real, untrained parts; and what it is made of: cutting out, framing, carving."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from grid_scenes import RADIUS, home_cameras, see_ball
from moving_scene import write_tiny_network
from PIL import Image

from lrm4d.cameras import project
from lrm4d.cli import run
from lrm4d.gaussians4d import Gaussians4D
from lrm4d.generation.carving import see_background
from lrm4d.generation.depth import save_geometry
from lrm4d.generation.foreground import (
    PRIOR,
    cut_out_moving,
    cut_out_of_white,
    find_foreground,
    solve_walk,
    take_from_white,
)
from lrm4d.generation.framing import Framing, frame_object
from lrm4d.generation.geometry import Geometry
from lrm4d.generation.network import InpaintingNetwork, NanoConfig, save_network
from lrm4d.generation.regions import close_gaps, drop_small_parts, fill_small_holes, label_parts
from lrm4d.pipeline import video_to_4d as chain
from lrm4d.pipeline.clip import read_clip, read_masks
from lrm4d.pipeline.stages import Stages
from lrm4d.refinement.distillation import NanoTeacher
from lrm4d.scenes import load_scene
from lrm4d.scenes.pictures import load_pictures, save_pictures
from lrm4d.trajectories import parse_bank
from lrm4d.video import read_video, write_video

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = NanoConfig(width=24, heads=2, layers=1, patch=8, words=1, text_width=8, frequencies=16)
FILES = {"scene.html", "scene.safetensors", "orbit.mp4", "contact_sheet.png", "views.png", "report.json"}


def moving_disk(count: int = 12, height: int = 36, width: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """A red disk that crosses a background of noise at rest; and where it is."""
    background = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0)) * 0.5
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    inside = torch.stack([(rows - 18) ** 2 + (columns - 14 - 36 * t / (count - 1)) ** 2 < 64 for t in range(count)])[
        :, None
    ]
    red = torch.tensor([0.9, 0.2, 0.1])[:, None, None]
    return torch.where(inside, red, background), inside


def overlap(found: torch.Tensor, truth: torch.Tensor) -> float:
    return ((found & truth).sum() / (found | truth).sum()).item()


# Regions


def test_parts_are_what_hangs_together_and_not_more():
    mask = torch.zeros(2, 1, 8, 12, dtype=torch.bool)
    mask[0, 0, 1:4, 1:4] = mask[0, 0, 4, 4] = mask[0, 0, 6, 8:] = mask[1, 0, 6, 8:] = True
    labels = label_parts(mask)
    assert labels.unique().numel() == 4 and bool(((labels > 0) == mask).all())
    assert labels[0, 0, 1, 1] == labels[0, 0, 4, 4] != labels[0, 0, 6, 8] != labels[1, 0, 6, 8]
    kept = drop_small_parts(mask, 0.5)
    assert kept[0].sum() == 10 and kept[1].sum() == 4, "of each picture by itself"


def test_a_long_snake_is_one_part():
    mask = torch.zeros(1, 1, 41, 41, dtype=torch.bool)
    mask[0, 0, ::2] = True
    mask[0, 0, 1::4, -1] = mask[0, 0, 3::4, 0] = True
    assert label_parts(mask).unique().numel() == 2


def test_small_holes_are_filled_and_large_ones_stay():
    mask = torch.ones(1, 1, 20, 20, dtype=torch.bool)
    mask[0, 0, 2, 2] = False
    mask[0, 0, 8:14, 8:14] = False
    filled = fill_small_holes(mask, 0.02)
    assert filled[0, 0, 2, 2] and not filled[0, 0, 10, 10] and (~filled).sum() == 36
    assert bool((close_gaps(mask, 1) == filled).all())


# Cutting out


def test_what_moves_is_cut_out_of_a_background_at_rest():
    frames, truth = moving_disk()
    assert overlap(cut_out_moving(frames) > 0.5, truth) > 0.85
    found = find_foreground(frames)
    assert "moves" in found.how and found.share == pytest.approx(truth.float().mean().item(), rel=0.15)
    assert bool((found.on_white(frames)[:, :, 0] == 1).all())


def test_a_walk_is_harmonic_between_what_is_fixed():
    """Without evidence and colours, one free row between two rows outside: all walkers leave."""
    frames = torch.zeros(1, 3, 3, 9)
    zone = torch.zeros(1, 1, 3, 9, dtype=torch.bool)
    zone[..., 1, :] = True
    prior = torch.full((1, 1, 3, 9), 0.5)
    inside = solve_walk(frames, prior, zone)[0, 0, 1]
    # Each pixel: (2 + weight) x = weight / 2, the neighbours in its row being equal.
    torch.testing.assert_close(inside, torch.full((9,), 0.5 * PRIOR / (2 + PRIOR)), atol=1e-5, rtol=0)


def test_nothing_that_moves_is_an_error_that_says_what_to_give():
    still = moving_disk()[0][:1].expand(6, -1, -1, -1)
    with pytest.raises(ValueError, match=r"0.0 % of the pictures.*--mask"):
        find_foreground(still)
    with pytest.raises(ValueError, match=r"100.0 %.*from 1 to 80 %"):
        find_foreground(still, masks=torch.ones(6, 1, 36, 64))


def test_haze_and_specks_on_white_are_no_object_but_its_own_white_spots_are():
    disk = moving_disk()[1]
    frames = torch.where(disk, 0.4, 0.96).expand(-1, 3, -1, -1).clone()
    frames[:, :, 2, 2] = 0.3
    frames[:, :, 18, 32] = 1.0
    found = find_foreground(frames)
    assert found.how == "a white background"
    expected = disk.clone()
    expected[:, :, 18, 32] |= disk[:, :, 18, 31] & disk[:, :, 18, 33]
    assert torch.equal(found.alphas > 0.5, expected)


def test_the_rim_of_what_stood_on_white_gets_the_colour_within_and_its_share():
    color = torch.tensor([0.8, 0.3, 0.1])[:, None, None]
    coverage = torch.zeros(1, 1, 12, 12)
    coverage[..., 3:9, 3:9] = 1
    coverage[..., 9, 3:9] = 0.4
    frames = coverage * color + 1 - coverage
    colors, alphas = take_from_white(frames, cut_out_of_white(frames))
    torch.testing.assert_close(alphas, coverage, atol=1e-5, rtol=0)
    torch.testing.assert_close(alphas * colors + 1 - alphas, frames, atol=1e-5, rtol=0)
    assert torch.allclose(colors[0, :, 9, 5], color[:, 0, 0], atol=1e-5)


# Framing


def test_the_object_is_in_the_middle_and_fills_the_square():
    _, truth = moving_disk()
    framing = frame_object(truth.float(), fill=0.8)
    ever = framing.crop(truth.float(), framing.side, 0.0).amax((0, 1)) > 0
    columns = ever.any(0).nonzero()[:, 0]
    width = int(columns[-1] - columns[0]) + 1
    assert width / framing.side == pytest.approx(0.8, abs=0.02)
    assert abs(int(columns[0]) - (framing.side - 1 - int(columns[-1]))) <= 1


@pytest.mark.parametrize("framing", [Framing(3, 5, 20), Framing(-6, -9, 48)])
def test_a_crop_is_a_change_of_intrinsics(framing):
    """What the cropped camera projects lies where the crop put it, and beyond the pictures nothing is valid."""
    cameras = home_cameras(2, 32)
    depths = torch.full((2, 1, 32, 32), 2.5)
    geometry = Geometry(depths, cameras, depths > 0)
    cropped = framing.crop_geometry(geometry, 40)
    pixels, depth = project(geometry.cameras[0], cropped.points()[0][cropped.valid[0, 0]])
    rows, columns = cropped.valid[0, 0].nonzero().unbind(-1)
    scale = framing.side / 40
    assert torch.allclose(pixels[:, 0], framing.left + (columns + 0.5) * scale, atol=1e-3)
    assert torch.allclose(pixels[:, 1], framing.top + (rows + 0.5) * scale, atol=1e-3)
    assert torch.allclose(depth, torch.tensor(2.5))
    assert bool(((pixels > 0) & (pixels < 32)).all())
    assert bool(cropped.valid.all()) == (framing.left >= 0)
    inside = framing.crop(torch.zeros(1, 3, 32, 32), 40, 1.0)
    assert bool((inside[0, 0] == 1).any()) == (framing.left < 0)


# Carving


def test_what_a_silhouette_rules_out_is_background_and_never_the_object():
    times = torch.linspace(0, 1, 2)
    home = home_cameras(2, 32)
    silhouette = see_ball(home, times)[2].float()
    bank = parse_bank("ring:views=3")
    others = bank.cameras(3, 32, 32).expand(2, 3)
    truth = see_ball(others, times.new_zeros(2, 1))[2]
    empty = see_background(silhouette, home, others, 1.0)
    assert not bool((empty & truth).any())
    assert empty.float().mean() > 0.5 * (~truth).float().mean(), "most of the background is told"
    assert not bool(see_background(torch.ones_like(silhouette), home, others, RADIUS)[..., 16, 16].any())


# Clips


def test_a_part_of_a_video_and_frames_evenly_from_it(tmp_path):
    write_video(tmp_path / "clip.mp4", torch.linspace(0, 1, 20)[:, None, None, None].expand(-1, 3, 16, 24), 10.0)
    clip = read_clip(tmp_path / "clip.mp4", None, start=0.5, seconds=1.0)
    assert clip.indices.tolist() == list(range(5, 16)) and clip.rate == pytest.approx(10)
    few = clip.choose(3)
    assert few.indices.tolist() == [5, 10, 15] and few.rate == pytest.approx(2)
    assert few.frames.mean((1, 2, 3)).tolist() == pytest.approx([5 / 19, 10 / 19, 15 / 19], abs=0.02)
    with pytest.raises(ValueError, match="begins at 9 s"):
        read_clip(tmp_path / "clip.mp4", None, start=9.0, seconds=1.0)


def test_masks_are_those_of_the_chosen_frames(tmp_path):
    write_video(tmp_path / "clip.mp4", torch.zeros(6, 3, 16, 24), 10.0)
    masks = torch.zeros(6, 3, 32, 48)
    masks[4, :, :16] = 1
    save_pictures([tmp_path / "masks" / f"{i}.png" for i in range(6)], masks)
    clip = read_clip(tmp_path / "clip.mp4").choose(6)
    chosen = replace(clip, frames=clip.frames[[1, 4]], indices=clip.indices[[1, 4]], alphas=clip.alphas[[1, 4]])
    found = read_masks(tmp_path / "masks", chosen)
    assert found.shape == (2, 1, 16, 24) and found[0].sum() == 0
    assert bool((found[1, 0, :8] == 1).all()) and found[1, 0, 8:].sum() == 0
    (tmp_path / "masks" / "5.png").unlink()
    (tmp_path / "masks" / "4.png").unlink()
    with pytest.raises(ValueError, match="4 masks; expected one for each frame"):
        read_masks(tmp_path / "masks", chosen)


# Which pictures are inputs


@pytest.mark.parametrize(("moments", "views", "count"), [(12, 5, 24), (12, 5, 60), (8, 2, 9), (6, 4, 3), (3, 8, 100)])
def test_inputs_hold_the_video_and_all_sides_evenly(moments, views, count):
    inputs, held_out = chain.choose_inputs(moments, views, count)
    assert len(set(inputs)) == len(inputs) == min(count, moments * views)
    assert not set(inputs) & set(held_out) and len(held_out) <= chain.HELD_OUT
    own = [time for time, view in inputs if view == 0]
    assert len(own) == min(moments, count)
    if count >= 2 * moments:
        sides = [sum(view == side for _, view in inputs) for side in range(1, views)]
        assert max(sides) - min(sides) <= -(-moments // (views - 1))
        moments_of = [sum(time == moment for time, view in inputs if view) for moment in range(moments)]
        assert max(moments_of) - min(moments_of) <= 1


# Stages


def test_a_stage_counts_while_its_inputs_and_files_are_the_same(tmp_path):
    stages = Stages(tmp_path, {"size": 16})
    (tmp_path / "a.txt").write_text("a")
    assert not stages.has("one", model="nano")
    stages.finish("one", [tmp_path / "a.txt"], model="nano")
    again = Stages(tmp_path, {"size": 16})
    assert again.has("one", model="nano") and not again.has("one", model="large") and not again.has("two")
    (tmp_path / "a.txt").unlink()
    assert not again.has("one", model="nano")
    with pytest.raises(ValueError, match=r"another run, which had size 16, now 32"):
        Stages(tmp_path, {"size": 32})


@pytest.mark.parametrize("content", ["{}", "{", '{"settings": 1, "finished": {}}'])
def test_a_broken_record_is_said(tmp_path, content):
    (tmp_path / "stages.json").write_text(content)
    with pytest.raises(ValueError, match=r"stages\.json"):
        Stages(tmp_path, {})


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds files"):
        Stages(tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


# The whole chain


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A ball on white that turns, and untrained networks; the inpainter copies warps."""
    folder = tmp_path_factory.mktemp("parts")
    images = see_ball(home_cameras(6, 48), torch.linspace(0, 1, 6))[0]
    write_video(folder / "ball.mp4", torch.nn.functional.pad(images, (0, 32), value=1.0), 6.0)
    torch.manual_seed(0)
    save_network(InpaintingNetwork(TINY), folder / "inpainter")
    write_tiny_network(folder / "network")
    return folder


def command(parts, output, *more, video=None) -> list[str]:
    given = [
        "video-to-4d",
        video or parts / "ball.mp4",
        "-o",
        output,
        "--inpainter",
        parts / "inpainter",
        "--steps",
        1,
    ]
    given += ["--model", parts / "network", "--depth", parts / "network", "--size", 32, "--frames", 3, "--inputs", 6]
    return [str(word) for word in (*given, "--bank", "fan:views=2,span=40", *more)]


@pytest.fixture(scope="module")
def done(parts, tmp_path_factory):
    output = tmp_path_factory.mktemp("done") / "out"
    assert run(command(parts, output)) == 0
    return output


def stamps(folder) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_a_video_becomes_a_page_that_moves(done, parts):
    assert {path.name for path in done.iterdir()} >= FILES
    report = json.loads((done / "report.json").read_text())
    assert report["cut_out"] == "a white background" and report["frames"] == 3 and len(report["seen"]) == 3
    assert report["framing"]["side"] == pytest.approx(0.8 * 48 / 0.8, rel=0.15)
    assert report["estimate"] > 0 and set(report["seconds"]) >= {"cut out", "depth", "views", "reconstruct"}
    assert len(Gaussians4D.load(done / "scene.safetensors")) == report["scene"]["gaussians"] > 0
    assert len(report["scene"]["inputs"]) == 6 and len(report["scene"]["targets"]) == 3
    page = (done / "scene.html").read_text()
    assert "<title>ball</title>" in page.replace("\n", "") or "ball" in page
    assert len(read_video(done / "grid" / "view02.mp4")[0]) == 3


def test_the_pictures_have_alphas_that_need_no_guess(done):
    scene = load_scene(done / "grid")
    views = scene.views(scene.file_paths)
    assert len(views) == 9 and bool((views.alphas[:, 0, 0, 0] == 0).all())
    frames = load_pictures(sorted((done / "frames").glob("*.png")))
    share = frames[:, 3:].mean()
    assert views.alphas.mean((1, 2, 3)).sub(share).abs().max() < 0.35 * share, "a ball looks alike from all sides"
    assert torch.allclose(views.alphas[:3], frames[:, 3:], atol=1 / 255)


def test_a_finished_run_is_not_made_again(done, parts, capsys):
    before = stamps(done)
    assert run(command(parts, done, "--json")) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["scene"]["gaussians"] > 0 and "about" not in printed.err
    changed = {name for name, stamp in stamps(done).items() if before.get(name) != stamp}
    assert changed == {"report.json", "stages.json"}


def test_a_finished_run_is_refined_from_its_views_once(done, parts, tmp_path, capsys):
    output = tmp_path / "out"
    shutil.copytree(done, output)
    line = [word.replace(str(done), str(output)) for word in command(parts, output, "--refine", "1", "--json")]
    assert run(line) == 0
    seconds = json.loads(capsys.readouterr().out)["seconds"]
    assert seconds["refine"] > 0 and not list(output.glob("refinement*"))
    assert (output / "geometry.npz").read_bytes() == (done / "geometry.npz").read_bytes()
    assert run(line) == 0
    assert "refine" not in json.loads(capsys.readouterr().out)["seconds"], "the same refinement is not done again"


def test_a_refinement_is_taught_by_the_inpainter(done, parts, tmp_path, capsys, monkeypatch):
    output, asked, velocity = tmp_path / "out", [], NanoTeacher.velocity
    shutil.copytree(done, output)
    line = [word.replace(str(done), str(output)) for word in command(parts, output, "--refine", "3", "--json")]
    monkeypatch.setattr(NanoTeacher, "velocity", lambda *told: asked.append(told[2]) or velocity(*told))
    assert run(line) == 0 and not asked
    assert run([*line, "--teach"]) == 0
    assert len(asked) > 2 and all(0.5 <= level <= 0.95 for level in asked)
    capsys.readouterr()
    assert run([*line, "--teach"]) == 0
    assert "refine" not in json.loads(capsys.readouterr().out)["seconds"], "nor is the same teaching"


def test_teaching_without_a_refinement_is_refused_before_anything_is_made(parts, tmp_path, capsys):
    assert run(command(parts, tmp_path / "out", "--teach")) == 2
    assert "add --refine SECONDS" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["generate", "reconstruct_scene", "save_with_alphas"])
def test_a_run_that_was_stopped_goes_on_and_ends_as_one_that_was_not(done, parts, tmp_path, monkeypatch, stage):
    def stop(*_, **__):
        raise KeyboardInterrupt

    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(chain, stage, stop)
        assert run(command(parts, output)) == 130
    before = stamps(output)
    assert not (output / "report.json").exists()
    assert run(command(parts, output)) == 0
    kept = {name for name, stamp in stamps(output).items() if before.get(name) == stamp}
    assert kept >= {"geometry.npz", "frames.json", "frames/0000.png"}
    for name in ("scene.safetensors", "grid/images/view01_0002.png", "geometry.npz"):
        assert (output / name).read_bytes() == (done / name).read_bytes(), name


def test_another_run_s_folder_is_refused_and_another_network_is_not_another_run(done, parts, capsys):
    assert run(command(parts, done, "--seed", 5)) == 2
    assert "another run" in capsys.readouterr().err
    assert run(command(parts, done, "--size", 36)) == 2
    assert "multiple of 8" in capsys.readouterr().err


def test_a_thing_that_moves_before_a_background_with_a_file_of_depth(parts, tmp_path, capsys):
    frames, inside = moving_disk(12, 72, 128)
    write_video(tmp_path / "clip.mp4", frames, 12.0)
    depths = torch.where(inside, 3.0, 6.0)
    save_geometry(tmp_path / "g.npz", Geometry(depths, replace(home_cameras(12, 128), height=72), depths > 0))
    more = ("--geometry", tmp_path / "g.npz", "--json")
    assert run(command(parts, tmp_path / "out", *more, video=tmp_path / "clip.mp4")) == 0
    told = json.loads(capsys.readouterr().out)
    assert "moves" in told["cut_out"] and told["share"] == pytest.approx(inside.float().mean().item(), rel=0.3)
    cameras = load_scene(tmp_path / "out" / "grid").cameras(["images/view00_0000.png"])
    assert cameras.intrinsics[0, 0, 0] == pytest.approx(128 / 2 / 0.4663 * 32 / told["framing"]["side"], rel=0.01)


def test_masks_tell_the_object(parts, tmp_path, capsys):
    frames, inside = moving_disk(6)
    still = torch.where(inside[:1], frames[:1], 0.3).expand(6, -1, -1, -1)
    write_video(tmp_path / "clip.mp4", still, 6.0)
    Image.fromarray((inside[0, 0].numpy() * 255).astype("uint8")).save(tmp_path / "mask.png")
    assert run(command(parts, tmp_path / "out", video=tmp_path / "clip.mp4")) == 2
    assert "--mask" in capsys.readouterr().err
    more = ("--mask", tmp_path / "mask.png")
    assert run(command(parts, tmp_path / "with", *more, video=tmp_path / "clip.mp4")) == 0
    assert "object by masks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--inpainter", "nothing"), "no inpainter called 'nothing'"),
        (("--mask", "nothing.png"), "nothing.png"),
        (("--frames", "3", "--seconds", "0"), "more than 0 s"),
        (("--start", "100"), "begins at 100 s"),
        (("--geometry", "no.npz"), "no.npz"),
    ],
)
def test_what_is_wrong_is_said_in_one_message(parts, tmp_path, more, message, capsys):
    assert run(command(parts, tmp_path / "out", *more)) == 2
    printed = capsys.readouterr()
    assert message in printed.err and "Traceback" not in printed.err
