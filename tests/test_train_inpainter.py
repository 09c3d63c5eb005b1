"""The inpainter's training: what its batches are, that it learns, and that a killed run learns as an unbroken one."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from data_tools.dice import Dice
from data_tools.world import WorldConfig
from lrm4d.cameras import Cameras
from lrm4d.config import make_config
from lrm4d.generation.network import load_network
from train.config import Stage
from train.inpainter import InpainterTask
from train.inpainter_config import InpainterConfig
from train.inpainter_data import InpaintingBatch, WorldPairs, make_batch
from train.inpainter_lessons import Lesson, draw_lesson
from train.inpainter_samples import Backdrop, draw_rig, draw_wobble

ROOT = Path(__file__).parent.parent
EXACT = InpainterConfig(
    stages=[Stage(1.0, 32)], backgrounds={"pattern": 1.0}, masks={"visibility": 1.0}, moving=0.0, closer=0.0,
    jitter_degrees=0.0, jitter_distance=0.0, depth_noise=0.0, edges=0.0,
)  # fmt: skip
TINY = (
    "model={width: 48, heads: 2, layers: 2, text_width: 16, frequencies: 32}",
    *("stages=[{until: 1.0, size: 32}]", "views_per_step=16", "most_slots=8", "frames=[2, 4]", "log_every=1"),
    *("warmup=3", "workers=0", "fixed_batches=0"),
)

pytestmark = pytest.mark.usefixtures("one_thread")


def make(config: InpainterConfig, lesson: Lesson, count: int = 3, size: int = 48, seed: int = 0) -> InpaintingBatch:
    return make_batch(config, lesson, count, size, WorldConfig(), torch.Generator().manual_seed(seed))


def split(batch: InpaintingBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """The warps of the targets and where they are seen."""
    targets = [index for index, slot in enumerate(batch.layout.shown) if slot.target]
    return batch.images[:, targets], batch.visibility[:, targets]


@pytest.mark.parametrize(
    "lesson", [Lesson(3), Lesson(3, twice=True), Lesson(2, views=2)], ids=["other", "twice", "two"]
)
def test_a_camera_that_stays_leaves_no_holes_and_gives_the_picture_back(lesson):
    batch = make(replace(EXACT, angles=(0.0, 0.0)), lesson)
    warps, seen = split(batch)
    assert seen.all()
    torch.testing.assert_close(warps, batch.truth, atol=1e-5, rtol=0)


def test_a_background_without_depth_is_a_hole_and_one_with_depth_is_not():
    still = replace(EXACT, angles=(0.0, 0.0))
    for kind in ("none", "white"):
        batch = make(replace(still, backgrounds={kind: 1.0}), Lesson(2))
        warps, seen = split(batch)
        background = (batch.truth == 1).all(dim=2, keepdim=True)
        assert background.float().mean() > 0.3
        assert seen[background].float().mean() < 0.01 if kind == "none" else seen.all()  # some objects are white too
        visible = seen.expand_as(warps)
        torch.testing.assert_close(warps[visible], batch.truth[visible], atol=1e-5, rtol=0)


def closest_to_centre(origins: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """How near lines come to the world's origin, around which the object lies within a sphere of radius 1."""
    directions = torch.nn.functional.normalize(directions, dim=-1)
    return (origins - (origins * directions).sum(-1, keepdim=True) * directions).norm(dim=-1)


def test_the_warp_is_the_other_views_truth_within_what_a_pixel_spans(monkeypatch):
    """The backdrop's colour changes by at most sum |amplitude| |wave| a unit of length (Lipschitz). A seen pixel is a
    mean of source pixels that land within a footprint of it, on each axis less than the way to the next neighbour of
    the surface; so it is wrong by at most that times the largest distance of neighbours, diagonally."""
    radius, size, config = 5.0, 64, replace(EXACT, angles=(10.0, 25.0))
    amplitudes, waves = torch.full((3, 3), 0.1), torch.tensor([[0.5, 0, 0], [0, 0.4, 0.2], [0, 0, 0.6]])
    backdrop = Backdrop(radius, torch.full((3,), 0.5), amplitudes, waves[:, None].expand(3, 3, 3), torch.ones(3, 3))
    monkeypatch.setattr("train.inpainter_data.draw_backdrop", lambda *_: backdrop)
    steepest = float((amplitudes[:, 0] * waves.norm(dim=-1)).sum())
    batch = make(config, Lesson(1), 8, size)
    warps, seen = split(batch)
    origins, directions = batch.cameras[:, 0].rays()
    middle = -(origins * directions).sum(-1, keepdim=True)
    far = middle + (radius**2 - (origins + middle * directions).square().sum(-1, keepdim=True)).sqrt()
    points = origins + far * directions  # of the source
    apart = max(float((points.diff(dim=dim)).norm(dim=-1).max()) for dim in (1, 2))
    bound = steepest * math.sqrt(2) * apart
    # Pixels that show the backdrop alone, with all around them, and where the source sees it free too.
    there, away = batch.cameras[:, 1].rays()
    middle = -(there * away).sum(-1, keepdim=True)
    place = there + away * (middle + (radius**2 - (there + middle * away).square().sum(-1, keepdim=True)).sqrt())
    clear = (closest_to_centre(there, away) > 1.2) & (closest_to_centre(origins, place - origins) > 1.2)
    clear = clear[:, None, None] & seen
    errors = (warps - batch.truth).abs().amax(dim=2, keepdim=True)[clear]
    assert len(errors) > 1000 and bound < 0.1
    assert errors.max() < bound
    assert errors.mean() < 0.2 * bound
    hidden = (~seen).float().mean()
    assert 0.05 < hidden < 0.9, "other views have holes"


def test_the_backdrop_is_one_thing_in_all_views():
    """Its depth leads to the same point of the sphere, whose colour does not depend on who looks."""
    backdrop = Backdrop(5.0, torch.full((3,), 0.5), torch.full((3, 3), 0.1), torch.randn(3, 3, 3), torch.zeros(3, 3))
    rig = draw_rig(EXACT, Lesson(1), Dice(torch.Generator().manual_seed(1)))
    from data_tools.camera_sampling import make_cameras
    from lrm4d.generation.geometry import Geometry
    from lrm4d.views import Views

    cameras: Cameras = make_cameras(rig.poses, [rig.fov] * 2, 16, 16).reshape(2)
    nothing = torch.zeros(2, 3, 16, 16)
    views = Views(nothing, nothing[:, :1], cameras, torch.zeros(2))
    images, depths, valid = backdrop.put_behind(views, nothing[:, :1], nothing[:, :1] > 0)
    points = Geometry(depths, cameras, valid).points()
    torch.testing.assert_close(points.norm(dim=-1), torch.full((2, 16, 16), 5.0), rtol=1e-4, atol=1e-4)
    angles = (backdrop.waves @ points[..., None, :, None])[..., 0]
    colors = 0.5 + 0.1 * angles.sin().sum(-2)
    torch.testing.assert_close(images.movedim(1, -1), colors.clamp(0, 1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["visibility", "editing", "union", "frayed"])
@pytest.mark.parametrize("twice", [False, True], ids=["other", "twice"])
def test_masks_only_ever_hide(kind, twice):
    """True is seen: masks of every kind have holes besides those of the warp, but edits alone, which keep a frame."""
    config = replace(EXACT, angles=(0.0, 0.0) if kind == "editing" else (20.0, 40.0))
    plain, masked = (
        make(replace(config, masks={name: 1.0}), Lesson(4, twice=twice), count=1) for name in ("visibility", kind)
    )
    seen, left = (split(batch)[1] for batch in (plain, masked))
    if kind == "editing" and twice:
        assert left[:, 0].all() and not left[:, 1:].all()
        torch.testing.assert_close(split(masked)[0], masked.truth)
    assert not (left & ~seen).any()
    assert torch.equal(left, seen) == (kind == "visibility")


def test_lessons_are_what_their_names_say():
    config = InpainterConfig()

    def draw(**changes) -> list[Lesson]:
        changed = replace(config, **changes)
        return [draw_lesson(changed, Dice(torch.Generator().manual_seed(seed))) for seed in range(60)]

    for lesson in draw(layouts={"window": 1.0}, twice=0.0):
        slots = lesson.layout().slots
        finished = [slot for slot in slots if slot.role == "context"]
        made = [slot for slot in slots if slot.target]
        assert 1 <= len(finished) <= config.overlap and {slot.view for slot in finished + made} == {1}
        assert max(slot.time for slot in finished) < min(slot.time for slot in made)
    packed = draw(layouts={"packed": 1.0})
    for lesson in packed:
        slots = lesson.layout().slots
        beside = {slot.view for slot in slots if slot.role == "context"}
        assert 1 <= len(beside) <= config.packed and not beside & {0, 1}
        assert lesson.twice == (not any(slot.role == "source" for slot in slots))
    assert 5 < sum(lesson.twice for lesson in packed) < 35
    joint = draw(layouts={"joint": 1.0}, twice=0.0)
    assert {lesson.views for lesson in joint} == {2, 3} and {lesson.fused for lesson in joint} == {False, True}
    for lesson in joint:
        roles = [slot.role for slot in lesson.layout().slots]
        assert roles.count("warp") == (roles.count("target") if lesson.fused else 0)
    for lesson in [*packed, *joint, *draw()]:
        assert len(lesson.layout().slots) <= config.most_slots
    for name in ("masks", "backgrounds"):
        with pytest.raises(ValueError, match=f"{name}: no 'odd'; there are"):
            make(replace(EXACT, **{name: {"odd": 1.0}}), Lesson(1))
    with pytest.raises(ValueError, match="layouts: no 'odd'; there are view, window, packed, joint"):
        draw(layouts={"odd": 1.0})


def test_cameras_stand_as_far_apart_as_asked():
    config = replace(EXACT, angles=(30.0, 90.0), closer=0.2)
    for seed in range(40):
        lesson = Lesson(2, views=1, hop=True)
        poses = torch.tensor(draw_rig(config, lesson, Dice(torch.Generator().manual_seed(seed))).poses)[:, 0].double()
        a, e = poses[:, 0], poses[:, 1]
        stands = torch.stack([e.cos() * a.sin(), -e.cos() * a.cos(), e.sin()], dim=-1)
        apart = torch.rad2deg(torch.acos((stands[0] * stands[1:]).sum(-1).clamp(-1, 1)))
        assert 10 < apart[0] <= 91, "turns add up as on a plane, at most: meridians meet"
        assert apart[1] < apart[0], "a hop begins between"
        assert ((poses[:, 2] / poses[0, 2] - 1).abs() < 0.2 + 1e-9).all()


def test_batches_are_fixed_by_seed_number_and_rank_and_share_layouts():
    config = InpainterConfig(stages=[Stage(1.0, 32)], views_per_step=16, most_slots=12)
    first, again, other = (WorldPairs(config, rank, 2)[5] for rank in (0, 0, 1))
    assert torch.equal(first.images, again.images) and first.seed == again.seed
    assert first.layout == other.layout and first.seed != other.seed
    assert not torch.equal(first.truth, other.truth)
    assert len(first) == max(1, 16 // len(first.layout.slots))
    fixed = WorldPairs(replace(config, fixed_batches=2), 0, 1)
    assert torch.equal(fixed[1].images, fixed[3].images) and fixed[1].seed != fixed[3].seed


def test_depths_wobble_smoothly_and_as_much_as_asked():
    generator = torch.Generator().manual_seed(0)
    factors = torch.stack([draw_wobble((6, 1, 32, 32), 0.02, generator) for _ in range(50)])
    assert 0.008 < float(factors.log().std()) < 0.03
    assert factors.diff(dim=-1).abs().max() < 0.02 and factors.diff(dim=1).abs().max() > 0.002
    assert torch.equal(draw_wobble((6, 1, 32, 32), 0.0, generator), torch.ones(6, 1, 32, 32))


@pytest.mark.parametrize("path", sorted((ROOT / "train/configs").glob("inpainter*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_valid(path):
    config = make_config(InpainterConfig, path)
    InpainterTask(config)
    assert config.stages[-1].until == 1.0
    assert all(stage.size % InpainterTask(config).network_config.patch == 0 for stage in config.stages)


def test_other_weights_must_be_of_the_same_shape(tmp_path):
    task = InpainterTask(make_config(InpainterConfig, list(TINY)))
    model = task.make_model()
    task.save(model, tmp_path)
    again = InpainterTask(replace(task.config, start_from=str(tmp_path)))
    fresh = again.make_model()
    assert again.start(fresh) == []
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, model.state_dict()[name].bfloat16().float())
    other = InpainterTask(replace(again.config, model={**task.config.model, "layers": 1}))
    with pytest.raises(ValueError, match=r"layers=2.*expected.*layers=1"):
        other.start(other.make_model())


def start_training(folder: Path, *changes: str, processes: int = 1) -> subprocess.Popen:
    """A run as a process group of its own, so that all of it can be killed."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    line = [sys.executable, *(launcher if processes > 1 else []), "-m", "train.inpainter"]
    line += ["train/configs/inpainter_debug.yaml", "-o", str(folder), *TINY, *changes]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(line, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)


def read_log(folder: Path) -> dict[int, dict]:
    path = folder / "log.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return {entry["step"]: entry for entry in map(json.loads, lines)}


def test_overfitting_a_pair_fills_its_holes():
    alone = ["layouts={view: 1, window: 0, packed: 0, joint: 0}", "backgrounds={none: 0, white: 0}"]
    settings = ["views_per_step=8", "twice=0", "drop=0", "bf16=false", "steps=80"]
    task = InpainterTask(make_config(InpainterConfig, [*TINY, *alone, *settings]))
    torch.manual_seed(0)
    model, pair = task.make_model(), WorldPairs(task.config, 0, 1)[0]

    def losses(seed: int) -> dict[str, torch.Tensor]:
        batch = replace(pair, seed=seed)
        return task.losses(task.ask(model, batch), batch, 0)

    @torch.no_grad()
    def in_holes() -> float:
        return sum(float(losses(10_000 + seed)["holes"]) for seed in range(8)) / 8

    before = in_holes()
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3)
    for step in range(task.config.steps):
        optimizer.zero_grad()
        losses(step)["loss"].backward()
        optimizer.step()
    assert in_holes() < before / 3
    sheet = task.draw(model.eval(), pair)
    assert sheet.shape[0] == 3 and sheet.min() >= 0 and sheet.max() <= 1


def test_two_processes_killed_and_started_again_under_zero_learn_as_unbroken(tmp_path):
    """However the state is shared out and however often it starts: one curve, in holes and outside."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    line = ("steps=10", "ema=0.9", "bf16=false", "sample_every=10")
    unbroken = start_training(whole, *line, "checkpoint_minutes=100", processes=2)
    assert unbroken.wait(timeout=300) == 0
    line = (*line, "checkpoint_minutes=0", "deepspeed={zero_optimization: {stage: 2}}")
    process = start_training(killed, *line, processes=2)
    stop, deadline = random.randint(1, 5), time.monotonic() + 240
    while not (killed / "checkpoints/latest").exists() or max(read_log(killed), default=0) < stop:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(random.uniform(0, 0.2))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert max(read_log(killed)) < 10
    assert start_training(killed, *line, processes=2).wait(timeout=300) == 0
    expected, found = read_log(whole), read_log(killed)
    assert set(found) == set(expected) == set(range(1, 11))
    for step in expected:
        for name in ("loss", "holes", "seen", "norm"):
            assert found[step][name] == pytest.approx(expected[step][name], rel=1e-3, abs=1e-6), (step, name, stop)
    assert (killed / "samples/step_10.png").exists()
    assert asdict(load_network(killed).config)["width"] == 48
