import math
from dataclasses import replace

import pytest
import torch
from grid_scenes import HOME, ball_grid, see_ball
from torchmetrics.image.fid import FrechetInceptionDistance

from lrm4d.cameras import look_at
from lrm4d.generation import metrics
from lrm4d.generation.geometry import Geometry, static_cameras
from lrm4d.rotations import quaternion_to_matrix
from lrm4d.trajectories import parse_path

pytestmark = pytest.mark.usefixtures("one_thread")


def trajectory(text: str = "arc:by=30 + dolly:by=0.5", count: int = 5):
    return parse_path(text).cameras(count, 16, 16, HOME)


def turned(cameras, degrees):
    """Each camera turned about its own axis (1, 2, 2) / 3 by its angle."""
    half = torch.deg2rad(torch.as_tensor(degrees, dtype=torch.float32)) / 2
    axis = torch.tensor([1.0, 2, 2]) / 3
    rotations = quaternion_to_matrix(torch.cat([half.cos()[:, None], half.sin()[:, None] * axis], dim=-1))
    poses = cameras.camera_to_world.clone()
    poses[:, :3, :3] = poses[:, :3, :3] @ rotations
    return replace(cameras, camera_to_world=poses)


@pytest.mark.parametrize("degrees", [[0, 10, 20, 5, 1], [0, 0.01, 0, 0, 0.02], [0, 179, 90, 0, 0]])
def test_rotation_errors_are_summed_angles(degrees):
    cameras = trajectory()
    expected = math.radians(sum(degrees))
    assert metrics.rotation_error(turned(cameras, degrees), cameras) == pytest.approx(expected, abs=2e-4)
    world = look_at(torch.tensor([1.0, 2, 3]), torch.zeros(3))
    moved = replace(cameras, camera_to_world=world @ cameras.camera_to_world)
    assert metrics.rotation_error(moved, cameras) < 1e-5, "frame 0 is where all is measured from"


def test_translation_errors_know_no_scale():
    cameras = trajectory()
    poses = cameras.camera_to_world.clone()
    poses[:, :3, 3] *= 7
    assert metrics.translation_error(replace(cameras, camera_to_world=poses), cameras) < 1e-5
    straight = trajectory("truck:by=2")
    poses = straight.camera_to_world.clone()
    sideways = poses[0, :3, 2]
    poses[1:3, :3, 3] += torch.tensor([[0.2], [0.4]]) * sideways  # of 2, where the trajectory's end is
    assert metrics.translation_error(replace(straight, camera_to_world=poses), straight) == pytest.approx(0.3)
    rest = static_cameras(5, 16, 16)
    assert metrics.translation_error(rest, straight) == pytest.approx(0.25 + 0.5 + 0.75 + 1)


def test_views_of_one_scene_agree_and_others_do_not():
    grid, geometry = ball_grid("fan:views=1,span=40", size=64)
    images, depths, hit = see_ball(grid.cameras[:, 1], grid.times)
    other = Geometry(depths, grid.cameras[:, 1], hit)
    agreeing = metrics.reprojection_psnr(grid.images[:, 0], geometry, images, other)
    late = metrics.reprojection_psnr(grid.images[:, 0], geometry, images.roll(1, 0), other)
    grey = metrics.reprojection_psnr(grid.images[:, 0], geometry, images * 0 + 0.5, other)
    assert (agreeing > 25).all() and (late < agreeing - 8).all() and (grey < 15).all()
    behind = replace(other, depths=other.depths * 1.2)
    assert metrics.reprojection_psnr(grid.images[:, 0], geometry, images, behind).isnan().all()
    same = metrics.reprojection_psnr(grid.images[:, 0], geometry, grid.images[:, 0], geometry)
    assert (same > 90).all()


def test_flicker_is_vbenchs():
    videos = torch.rand(2, 4, 3, 8, 8)
    levels = (videos * 255).double().numpy()
    for video, score in zip(levels, metrics.temporal_flicker(videos), strict=True):
        differences = [abs(video[i + 1] - video[i]).mean() for i in range(3)]
        assert float(score) == pytest.approx((255 - sum(differences) / 3) / 255, abs=1e-5)
    assert metrics.temporal_flicker(videos[:, :1].expand(2, 4, 3, 8, 8)).tolist() == [1.0, 1.0]


def samples(mean, covariance):
    """Six points that have exactly this mean and (unbiased) covariance."""
    root = torch.linalg.cholesky(torch.tensor(covariance, dtype=torch.float64))
    corners = torch.cat([torch.eye(3), -torch.eye(3)]).double() * math.sqrt(5 / 2)
    return torch.tensor(mean, dtype=torch.float64) + corners @ root.T


def test_frechet_distance_of_two_gaussians_in_closed_form():
    a = samples([1.0, 0, 2], [[4.0, 0, 0], [0, 1, 0], [0, 0, 9]])
    b = samples([0.0, 3, 2], [[1.0, 0, 0], [0, 16, 0], [0, 0, 9]])
    expected = 1 + 9 + (2 - 1) ** 2 + (1 - 4) ** 2
    assert metrics.frechet_distance(a, b) == pytest.approx(expected, abs=1e-9)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="1 and 6 samples"):
        metrics.frechet_distance(a[:1], b)


class Colors(torch.nn.Module):
    """A network for pictures: the mean colour and its spread."""

    def forward(self, pictures):
        pictures = pictures.double() / (255.0 if pictures.dtype == torch.uint8 else 1.0)
        return torch.cat([pictures.mean((-2, -1)), pictures.std((-2, -1))], dim=-1)


def test_fid_is_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    made, real = (torch.randint(0, 256, (30, 3, 4, 4), generator=generator, dtype=torch.uint8) for _ in range(2))
    real = (real * 0.5).to(torch.uint8)
    oracle = FrechetInceptionDistance(feature=Colors(), input_img_size=(3, 4, 4))
    oracle.set_dtype(torch.float64)
    oracle.update(made, real=False)
    oracle.update(real, real=True)
    assert metrics.fid(made / 255, real / 255, Colors()) == pytest.approx(float(oracle.compute()), rel=1e-5)


def test_views_take_the_place_of_frames():
    generator = torch.Generator().manual_seed(0)
    made, real = (torch.rand(2, 3, 4, 3, 5, 5, generator=generator) for _ in range(2))
    seen = []

    def network(videos):
        seen.append(videos)
        return videos.diff(dim=1).abs().mean((2, 3, 4))

    distance = metrics.fvd_of_views(made, real, network)
    assert [tuple(videos.shape) for videos in seen] == [(6, 4, 3, 5, 5)] * 2
    assert torch.equal(seen[0][4], made[1, 1]) and torch.equal(seen[1][2], real[0, 2])
    assert distance == metrics.frechet_distance(network(made.flatten(0, 1)), network(real.flatten(0, 1)))
    assert metrics.fvd(made[0], made[0], network) < 1e-12 < distance


def test_similarities_are_of_neighbours():
    angles = torch.deg2rad(torch.tensor([[0.0, 10, 40], [5.0, 15, 45]]))  # [time, view]
    embeddings = torch.stack([angles.cos(), angles.sin()], dim=-1) * torch.rand(2, 3, 1).add(0.5)
    cosine = lambda degrees: math.cos(math.radians(degrees))  # noqa: E731
    assert metrics.frame_similarity(embeddings) == pytest.approx(cosine(5), abs=1e-5)
    assert metrics.view_similarity(embeddings) == pytest.approx((cosine(10) + cosine(30)) / 2, abs=1e-5)
