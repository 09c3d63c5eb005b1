"""The judge of distillation: what the teacher is told and when it is asked, on the ball of stripes."""

from dataclasses import replace

import pytest
import torch

from eval.distillation import TAUGHT, judge, resize_fan
from eval.fans import Fan
from lrm4d.generation.inpainter import NanoInpainter
from lrm4d.generation.network import InpaintingNetwork, NanoConfig
from lrm4d.generation.tuning import turn_cameras
from lrm4d.refinement.distillation import DistillationConfig
from lrm4d.refinement.lessons import prepare_lessons, teach, turns_between
from lrm4d.trajectories import cameras_around
from tests.grid_scenes import ball_grid, see_ball
from tests.moving_scene import make_gaussians

pytestmark = pytest.mark.usefixtures("one_thread")


def make_fan(count: int = 4, size: int = 24) -> Fan:
    grid, geometry = ball_grid("fan:views=8,span=90", count, size)
    images, _, hit = see_ball(grid.cameras, grid.times)
    names = tuple(f"view{view}" for view in range(grid.shape[1]))
    return Fan(names, images, hit.float(), grid.cameras, grid.times, {0: geometry})


def video_of(fan: Fan) -> tuple:
    return fan.images[:, 0], fan.geometries[0], fan.times


def make_inpainter() -> NanoInpainter:
    torch.manual_seed(0)
    return NanoInpainter(
        InpaintingNetwork(NanoConfig(24, 2, 1, patch=4, words=1, text_width=8, frequencies=16)), torch.device("cpu")
    )


def test_cameras_turn_as_the_trajectories_do():
    turned = turn_cameras(make_fan().cameras[0, 0], 30.0)
    wanted = cameras_around(torch.tensor([30.0]), torch.zeros(1), torch.full((1,), 2.7), 50.0, 24, 24)[0]
    torch.testing.assert_close(turned.camera_to_world, wanted.camera_to_world, atol=1e-5, rtol=0)


def test_what_is_taught_lies_between_neighbours_and_not_at_the_back():
    turns = [0.0, -60.0, 30.0, 60.0, -30.0]
    front = make_fan().cameras[0, 0]
    fan = torch.stack([turn_cameras(front, turn).camera_to_world for turn in turns])
    cameras = replace(front, camera_to_world=fan, intrinsics=front.intrinsics.expand(5, 3, 3))
    assert turns_between(cameras) == pytest.approx([-45, -15, 15, 45], abs=1e-3)
    ring = torch.stack([turn_cameras(front, 72.0 * i).camera_to_world for i in range(5)])
    around = turns_between(replace(cameras, camera_to_world=ring))
    assert around == pytest.approx([-180, -108, -36, 36, 108], abs=1e-3)


def test_lessons_cover_all_moments_and_show_the_teacher_the_warps():
    fan = make_fan()
    lessons = prepare_lessons(*video_of(fan), TAUGHT, make_inpainter(), moments=2)
    assert len(lessons) == 2 * len(TAUGHT)
    assert {float(t) for lesson in lessons for t in lesson.times} == {float(t) for t in fan.times}
    for lesson in lessons:
        truth, _, hit = see_ball(lesson.cameras, lesson.times)
        shown = lesson.teacher.conditions.images[0, 2:] / 2 + 0.5
        seen = (lesson.teacher.conditions.visibility[0, 2:] > 0.5) & hit
        # The warp shows the ball's stripes where they are, but for the coarse pixels; so times and cameras fit.
        assert seen.float().mean() > 0.1
        assert ((shown - truth).abs() * seen).sum() / (3 * seen.sum()) < 0.06


def test_the_teacher_is_asked_every_so_many_steps_and_moves_the_scene():
    fan = make_fan()
    term = teach(prepare_lessons(*video_of(fan), TAUGHT, make_inpainter(), moments=2), DistillationConfig(), every=3)
    scene, asked = make_gaussians(10), []
    colors = scene.colors.clone().requires_grad_()

    def render(cameras, times):
        asked.append(len(times))
        return torch.nn.functional.pad(colors.mean() * torch.ones(len(times), 3, 12, 12), (6, 6, 6, 6), value=1.0)

    losses = [term(render, step) for step in range(6)]
    assert asked == [2, 2] and [loss.item() > 0 for loss in losses] == [True, False, False, True, False, False]
    losses[0].backward()
    assert colors.grad.abs().sum() > 0


def test_scores_are_of_the_judged_views_alone():
    fan = make_fan()
    scores, images = judge(make_gaussians(30), fan)
    assert images.shape == fan.images.shape
    spoilt = Fan(**{**vars(fan), "images": fan.images.clone()})
    spoilt.images[:, :5] = 0.5  # the video and what was made
    again, _ = judge(make_gaussians(30), spoilt)
    assert again["psnr"] == scores["psnr"] and again["flicker"] != scores["flicker"]
    small = resize_fan(fan, 12)
    assert small.images.shape[-2:] == (12, 12) and small.cameras.width == 12 and len(small.geometries[0]) == 4
