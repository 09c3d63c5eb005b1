import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from grid_scenes import BallDepth, ball_grid, see_ball

from lrm4d.generation.completion import Sampling, _Work, complete
from lrm4d.generation.grid import load_grid
from lrm4d.generation.inpainter import NanoInpainter
from lrm4d.generation.network import InpaintingNetwork, NanoConfig
from lrm4d.generation.plans import Plan
from lrm4d.generation.route import spline
from lrm4d.generation.warping import warp
from lrm4d.metrics import masked_psnr

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = NanoConfig(width=24, heads=2, layers=2, patch=8, words=1, text_width=8, frequencies=16)
QUICK = Sampling(steps=2, seed=3)


def make_inpainter() -> NanoInpainter:
    """Random weights everywhere, so that all that is seen matters."""
    torch.manual_seed(0)
    network = InpaintingNetwork(TINY)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return NanoInpainter(network, torch.device("cpu"))


def run_plan(plan: Plan, bank: str = "fan:views=2,span=40", count: int = 4, frames=slice(None), **options):
    grid, geometry = ball_grid(bank, count)
    return complete(grid[frames], geometry[frames], plan, make_inpainter(), QUICK, **options)


def test_everything_is_made_and_the_video_stays():
    grid, _ = ball_grid(count=4)
    done = run_plan(Plan(packed=2))
    assert torch.equal(done.known, grid.known)
    assert (done.images[:, 0] - grid.images[:, 0]).abs().max() <= 0.5 / 255 + 1e-6
    assert ((done.images * 255).round() - done.images * 255).abs().max() < 1e-4, "in 8-bit levels"
    holes = done.images[:, 1:][~grid.known[:, 1:].expand_as(done.images[:, 1:])]
    assert holes.std() > 0.1


def test_windows_without_overlap_are_windows_of_their_own():
    whole = run_plan(Plan(window=2)).images
    parts = [run_plan(Plan(), frames=slice(start, start + 2)).images for start in (0, 2)]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, run_plan(Plan(window=3, overlap=1)).images)
    assert not torch.equal(whole, run_plan(Plan()).images)


def test_nothing_packed_is_independent():
    together = run_plan(Plan(packed=0)).images
    alone = [run_plan(Plan(), bank=f"fan:views=1,span={span}").images[:, 1] for span in (40,)]
    assert torch.equal(together[:, 2], alone[0])
    packed = run_plan(Plan(packed=2)).images
    assert torch.equal(packed[:, 1], together[:, 1]), "the first view has nothing to be packed with"
    assert not torch.equal(packed[:, 2], together[:, 2])


def test_joint_with_one_view_is_plain():
    one = {"bank": "fan:views=1,span=40"}
    plain = run_plan(Plan(), **one).images
    assert torch.equal(plain, run_plan(Plan(joint=True), **one).images)
    assert not torch.equal(run_plan(Plan()).images, run_plan(Plan(joint=True)).images)


def test_masks_of_ones_own_are_heard():
    grid, geometry = ball_grid(count=2)
    edited = grid.known.clone()
    edited[:, 1, :, 8:16, 8:16] = False
    changed = replace(grid, known=edited)
    plain, other = (complete(g, geometry, Plan(), make_inpainter(), QUICK) for g in (grid, changed))
    assert not torch.equal(plain.images[:, 1], other.images[:, 1])
    assert torch.equal(plain.images[:, 2], other.images[:, 2])


class Copier:
    """An inpainter that leaves holes white: what is seen in the end came by warps alone."""

    usual = Sampling(steps=1)

    def __call__(self, layout, images, visibility, cameras, **_):
        targets = [index for index, slot in enumerate(layout.shown) if slot.target]
        return torch.where(visibility, images, 1.0)[:, targets]


def hops_of_a_ball():
    """A view 50 degrees aside in hops of at most 20: stations 2 and 3 lie on the way to 1."""
    grid, geometry = ball_grid("fan:views=1,span=100", count=2, size=64)
    return grid, geometry, spline(grid.cameras, 20.0)


def test_hops_carry_the_picture_along():
    grid, geometry, route = hops_of_a_ball()
    truth, _, hit = see_ball(grid.cameras, grid.times)
    asked = []

    def depth(frames, progress=None):
        asked.append(frames)
        return BallDepth(route.cameras[:, 1 + len(asked)])(frames)

    done = complete(grid, geometry, Plan(max_hop=20.0), Copier(), QUICK, depth=depth)
    assert len(asked) == 2, "at both stops; the end is nobody's origin"
    inner = hit[:, 1] & grid.known[:, 1]
    assert (masked_psnr(grid.images[:, 1], truth[:, 1], inner) > 30).all()
    assert (masked_psnr(done.images[:, 1], truth[:, 1], inner) > 23).all(), "three times interpolated"
    with pytest.raises(ValueError, match="give a depth provider"):
        complete(grid, geometry, Plan(max_hop=20.0), Copier(), QUICK)


def test_estimated_depth_of_a_stop_is_fitted_to_what_the_warp_knows():
    grid, geometry, route = hops_of_a_ball()
    stop = route.cameras[:, 2]
    _, truth, hit = see_ball(stop, grid.times)
    seen = warp(grid.images[:, 0], geometry, stop).visibility
    holes = hit & ~seen
    found = _Work(grid, geometry, route.cameras, route.origins, BallDepth(stop, 0.4, 0.1)).geometry_at(2)
    wrong = (found.depths / truth - 1).abs()
    assert holes.sum() > 100 and found.valid[hit].all()
    assert wrong[holes].median() < 0.01 and wrong[hit & seen].median() < 0.01
    assert (BallDepth(stop, 0.4, 0.1)(grid.images[:, 0]).depths / truth - 1).abs()[holes].median() > 0.2


def test_an_estimate_comes_first_and_progress_is_of_the_whole(tmp_path):
    told = []
    announce = lambda estimate: told.append((estimate, (tmp_path / "g" / "images").exists()))  # noqa: E731
    seen = []
    report = lambda *step: seen.append(step)  # noqa: E731
    options = {"folder": tmp_path / "g", "announce": announce, "progress": report}
    done = run_plan(Plan(window=2), **options)
    (estimate, started), *rest = told
    assert not rest and not started
    assert (estimate.steps, estimate.pictures, estimate.largest) == (4, 8, 4)
    assert estimate.seconds > 0 and estimate.memory > 1e7
    assert "8 pictures in 4 steps, at most 4 at once" in estimate.describe()
    assert seen == [("complete", index, 8) for index in range(1, 9)]
    told.clear()
    again = run_plan(Plan(window=2), **options)
    assert torch.equal(again.images, done.images) and not told, "nothing was left to make"


def test_a_folder_belongs_to_one_run(tmp_path):
    folder = tmp_path / "grid"
    run_plan(Plan(), folder=folder)
    with pytest.raises(ValueError, match="differs in plan"):
        run_plan(Plan(packed=1), folder=folder)
    with pytest.raises(ValueError, match="differs in inputs"):
        run_plan(Plan(), folder=folder, bank="fan:views=2,span=44")
    with pytest.raises(ValueError, match="differs in made_by"):
        run_plan(Plan(), folder=folder, made_by="another")
    (folder / "run.json").unlink()
    with pytest.raises(ValueError, match=r"no run\.json"):
        run_plan(Plan(), folder=folder)


RESUMED = Plan(max_hop=9.0, window=3, overlap=1, packed=1)


class KnownDepth:
    """The ball seen from the home camera, whoever asks: wrong but steady."""

    def __call__(self, frames, progress=None):
        grid, _ = ball_grid(count=len(frames))
        return BallDepth(grid.cameras[:, 0])(frames)


def run_resumable(folder: Path, inpainter=None):
    grid, geometry = ball_grid(count=4)
    return complete(grid, geometry, RESUMED, inpainter or make_inpainter(), QUICK, folder, KnownDepth())


class Slow(NanoInpainter):
    """Takes its time, so that it can be killed."""

    def __call__(self, *args, **options):
        time.sleep(0.3)
        return super().__call__(*args, **options)


def test_a_killed_run_goes_on_and_ends_the_same(tmp_path):
    expected = run_resumable(tmp_path / "whole")
    folder = tmp_path / "killed"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, __file__, str(folder)], env=environment)
    deadline = time.time() + 120
    while len(list(folder.glob("*/view*.png"))) < 13 and process.poll() is None and time.time() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was at work"
    assert not (folder / "transforms.json").exists()
    asked = []

    class Counted(NanoInpainter):
        def __call__(self, *args, **options):
            asked.append(args)
            return super().__call__(*args, **options)

    whole = make_inpainter()
    resumed = run_resumable(folder, Counted(whole.network, whole.device))
    assert torch.equal(resumed.images, expected.images)
    assert torch.equal(load_grid(folder).images, load_grid(tmp_path / "whole").images)
    assert 1 <= len(asked) <= 6, "of 12 steps: what was made was not made again"
    assert json.loads((folder / "run.json").read_text())["plan"]["packed"] == 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    whole = make_inpainter()
    run_resumable(Path(sys.argv[1]), Slow(whole.network, whole.device))
