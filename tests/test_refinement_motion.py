"""The moving form and its inverse, the shared motion, and its writing into 4D Gaussians."""

import math
from dataclasses import replace

import pytest
import torch
from moving_scene import make_gaussians, make_views

from lrm4d.gaussians3d import pack_square, unpack_symmetric
from lrm4d.gaussians4d import Gaussians4D, MovingGaussians
from lrm4d.metrics import psnr
from lrm4d.refinement.baking import WINDOW, bake
from lrm4d.refinement.carrying import carry, carry_frames
from lrm4d.refinement.deforming import Deforming, start_free, start_shared
from lrm4d.refinement.fit import draw_slices
from lrm4d.refinement.motion import (
    JOINT,
    Skeleton,
    build_skeleton,
    poses,
    poses_at,
    rigidity_loss,
    to_transforms,
    unsteadiness_loss,
)
from lrm4d.refinement.moving import from_moving
from lrm4d.rotations import (
    quaternion_pair_to_so4,
    quaternion_to_matrix,
    rotation_vector_to_quaternion,
    so4_to_quaternion_pair,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_skeleton(nodes: int, points: int = 50) -> Skeleton:
    return build_skeleton(draw(points, 3), nodes, 3, torch.Generator().manual_seed(0))


def make_shared(knots: int = 9, nodes: int = 12) -> Deforming:
    """The small scene, whose Gaussians last throughout, carried along a motion that bends."""
    scene = make_gaussians()
    scene = replace(scene, opacities=0.5 * scene.opacities)
    shared = start_shared(scene, 60, (nodes, 3), knots, 0.01, torch.Generator().manual_seed(0))
    steps = {"steps": 0.01 * draw(nodes, knots, 3), "coarse_steps": 0.01 * draw(3, knots, 3, seed=1)}
    steps["turns"] = 0.1 * draw(nodes, knots, 3, seed=2)
    return shared.with_learned({**shared.learned(), **steps})


def test_quaternion_pairs_are_found_again_from_their_rotation():
    left, right = draw(50, 4).double(), draw(50, 4, seed=1).double()
    rotations = quaternion_pair_to_so4(left, right)
    found = so4_to_quaternion_pair(rotations)
    torch.testing.assert_close(quaternion_pair_to_so4(*found), rotations)
    torch.testing.assert_close(found[0].norm(dim=-1), torch.ones(50).double())


@pytest.mark.parametrize("duration", [0.02, 0.3, 4.0])
def test_from_moving_is_the_inverse_of_to_moving(duration):
    moving = make_gaussians().to_moving()
    moving = MovingGaussians(
        **{
            **vars(moving),
            "velocities": 0.4 * draw(60, 3),
            "time_deviations": torch.full((60,), duration),
            "covariances": 0.01 * moving.covariances,
        }
    )
    again = from_moving(moving, 0.1).to_moving()
    for name, value in vars(moving).items():
        torch.testing.assert_close(
            getattr(again, name), value, rtol=2e-3, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_a_gaussian_at_rest_has_equal_quaternions():
    moving = make_gaussians().to_moving()
    still = MovingGaussians(**{**vars(moving), "velocities": torch.zeros(60, 3)})
    scene = from_moving(still, 0.1)
    agreement = (scene.left_quaternions * scene.right_quaternions).sum(-1).abs()
    torch.testing.assert_close(agreement, torch.ones(60))


def test_a_written_scene_keeps_its_pictures_in_half_precision(tmp_path):
    views = make_views()
    scene = from_moving(make_gaussians().to_moving(), 0.3)
    scene.save(tmp_path / "scene.safetensors")
    before = make_gaussians().render(views.cameras, views.times).image
    after = Gaussians4D.load(tmp_path / "scene.safetensors").render(views.cameras, views.times).image
    assert psnr(before, after).min() > 45


def test_paths_start_at_the_middle_knot_and_are_sums_of_steps():
    skeleton = make_skeleton(4)
    steps, turns, still = draw(4, 7, 3), draw(4, 7, 3, seed=1), torch.zeros(3, 7, 3)
    found = poses(skeleton, steps, still, turns)
    assert found[:, 3].abs().max() == 0
    torch.testing.assert_close(found.diff(dim=1), torch.cat([steps, turns], dim=-1)[:, 1:])
    together = poses(skeleton, steps, torch.ones(3, 7, 3), turns)  # a step that all coarse nodes do, all nodes do
    torch.testing.assert_close(together[..., :3].diff(dim=1), steps[:, 1:] + 1)


def test_between_knots_paths_are_straight_and_ends_are_met():
    found = poses(make_skeleton(4), draw(4, 5, 3), draw(3, 5, 3), draw(4, 5, 3))
    at = poses_at(found, torch.tensor([-1.0, -0.75, 1.0]))
    torch.testing.assert_close(at[:, 0], found[:, 0])
    torch.testing.assert_close(at[:, 1], (found[:, 0] + found[:, 1]) / 2)
    torch.testing.assert_close(at[:, 2], found[:, -1])


def test_rotation_vectors_turn_by_their_length_about_themselves():
    vectors = torch.cat([torch.zeros(1, 3), 1e-4 * draw(3, 3), draw(5, 3)]).double().requires_grad_()
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    generators = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    ours = quaternion_to_matrix(rotation_vector_to_quaternion(vectors))
    torch.testing.assert_close(ours, torch.linalg.matrix_exp(generators), rtol=0, atol=1e-11)
    (gradient,) = torch.autograd.grad((ours * draw(9, 3, 3).double()).sum(), vectors)
    assert gradient.isfinite().all()


def make_turned(skeleton: Skeleton, shift: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The poses of a body that turns as a whole and goes by `shift`, and its rotation."""
    vector = torch.tensor([0.3, -1.1, 0.6])
    rotation = quaternion_to_matrix(rotation_vector_to_quaternion(vector))
    placed = skeleton.nodes @ rotation.mT + shift
    return torch.cat([placed - skeleton.nodes, vector.expand(len(placed), 3)], dim=1)[:, None], rotation


def test_what_all_nodes_do_all_points_do():
    skeleton, shift = make_skeleton(10, points=80), torch.tensor([0.1, -0.2, 0.3])
    turned, rotation = make_turned(skeleton, shift)
    frames = draw(80, 3, 4)
    means, covariances = carry(to_transforms(skeleton, turned), frames, skeleton.owners, skeleton.weights)
    torch.testing.assert_close(means[0], frames[..., 3] @ rotation.mT + shift)
    factors = rotation @ frames[..., :3]
    torch.testing.assert_close(unpack_symmetric(covariances[0]), factors @ factors.mT)


@pytest.mark.parametrize(("times", "nodes", "points", "owned_by"), [(3, 5, 40, 4), (1, 1, 3, 1), (2, 3, 0, 3)])
def test_the_operator_carries_like_plain_pytorch_and_so_do_its_gradients(times, nodes, points, owned_by):
    transforms, frames = (draw(*shape).requires_grad_() for shape in ((times, nodes, 3, 4), (points, 3, 4)))
    owners = draw(points, nodes, seed=1).topk(owned_by).indices
    weights = draw(points, owned_by, seed=2).softmax(dim=1)
    exact = [x.detach().double().requires_grad_() for x in (transforms, frames)]
    ours = carry(transforms, frames, owners, weights)
    carried = carry_frames(*exact, owners, weights.double())
    theirs = carried[..., 3], pack_square(carried[..., :3])
    sides = draw(times, points, 3, seed=3), draw(times, points, 6, seed=4)
    gradients = torch.autograd.grad(ours, (transforms, frames), sides)
    expected = torch.autograd.grad(theirs, exact, [side.double() for side in sides])
    for mine, other in zip((*ours, *gradients), (*theirs, *expected), strict=True):
        torch.testing.assert_close(mine.double(), other, rtol=1e-4, atol=1e-5)


def test_carrying_does_not_depend_on_threads(one_thread):
    transforms, frames = (draw(*shape).requires_grad_() for shape in ((4, 6, 3, 4), (500, 3, 4)))
    owners, weights = draw(500, 6, seed=1).topk(3).indices, draw(500, 3, seed=2).softmax(dim=1)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        means, covariances = carry(transforms, frames, owners, weights)
        found.append(torch.autograd.grad(means.square().sum() + covariances.sum(), (transforms, frames)))
    for mine, other in zip(*found, strict=True):
        assert torch.equal(mine, other)


def test_rigid_motion_costs_nothing_and_stretching_does():
    skeleton = make_skeleton(15, points=200)
    turned, _ = make_turned(skeleton, torch.tensor([0.3, 0.0, -0.1]))
    assert rigidity_loss(skeleton, to_transforms(skeleton, turned)) < 1e-6
    stretched = torch.cat([0.1 * skeleton.nodes, torch.zeros(15, 3)], dim=1)[:, None]
    distances = (skeleton.nodes[:, None] - skeleton.nodes[skeleton.neighbors]).norm(dim=-1)
    expected = ((0.1 * distances / distances.mean()).square() + JOINT**2).sqrt().mean() - JOINT
    torch.testing.assert_close(rigidity_loss(skeleton, to_transforms(skeleton, stretched)), expected)


def test_a_joint_costs_little_more_than_the_same_bend_everywhere():
    """By squares it would cost twenty times as much, so that nothing would bend at joints."""
    nodes = torch.zeros(21, 3)
    nodes[:, 0] = torch.linspace(-1, 1, 21)
    near = torch.tensor([[max(i - 1, 0), min(i + 1, 20)] for i in range(21)])
    chain = replace(make_skeleton(21), nodes=nodes, neighbors=near)

    def bent(angles: torch.Tensor) -> torch.Tensor:
        """Poses of a chain whose links have these angles in the plane."""
        links = 0.1 * torch.stack([angles.cos(), angles.sin(), torch.zeros(21)], dim=-1)
        placed = torch.cat([torch.zeros(1, 3), ((links[1:] + links[:-1]) / 2).cumsum(0)])
        turns = torch.stack([torch.zeros(21), torch.zeros(21), angles], dim=-1)
        return torch.cat([placed - nodes, turns], dim=1)[:, None]

    elbow, bow = torch.where(torch.arange(21) < 10, 0.0, 2.0), torch.linspace(0, 2, 21)
    at_a_joint, everywhere = (rigidity_loss(chain, to_transforms(chain, bent(angles))) for angles in (elbow, bow))
    assert 0 < everywhere < at_a_joint < 2 * everywhere


def test_a_straight_path_costs_nothing():
    assert unsteadiness_loss(torch.full((3, 6, 3), 0.2)) == 0
    assert unsteadiness_loss(draw(3, 6, 3)) > 0


def test_the_written_motion_shows_the_same_pictures_at_the_knots():
    shared = make_shared()
    views = make_views(9)
    moments = torch.linspace(-1, 1, 9)
    baked = bake(shared, 1e-4)
    torch.testing.assert_close(moments, 2 * views.times - 1)
    with torch.no_grad():
        ours = draw_slices(shared.slice_at(moments), views.cameras.reshape(-1, 1), 0.3, False).colors
        theirs = draw_slices(baked.slice_at(moments), views.cameras.reshape(-1, 1), 0.3, False).colors
    assert psnr(ours, theirs).min() > 33


def test_what_stands_or_moves_straight_stays_one_gaussian():
    shared = make_shared()
    straight = {name: torch.full_like(steps, 0.01) for name, steps in shared.motion.items()}
    straight["turns"] = torch.zeros_like(straight["turns"])
    shared = shared.with_learned({**shared.learned(), **straight})
    baked = bake(shared, 1e-4)
    assert len(baked.means) == len(shared)
    torch.testing.assert_close(
        baked.slice_at(torch.tensor([-0.5, 1.0])).means, shared.slice_at(torch.tensor([-0.5, 1.0])).means
    )


def test_a_wider_tolerance_makes_fewer_gaussians_which_keep_it():
    shared = make_shared(knots=17)
    fine, coarse = bake(shared, 1e-4), bake(shared, 0.02)
    assert len(shared) < len(coarse.means) < len(fine.means)


def test_pieces_add_up_to_the_same_light_at_every_time():
    knots, opacity = 33, 0.9
    scene = make_gaussians(1)
    moving = MovingGaussians(**{**vars(scene.to_moving()), "opacities": torch.full((1,), opacity)})
    free = start_free(from_moving(moving, 0.1)).gaussians
    free["log_time_deviations"] = torch.full((1,), math.log(100.0))
    skeleton = build_skeleton(free["means"], 1, 1, torch.Generator().manual_seed(0))
    still = torch.zeros(1, knots, 3)
    bent = Deforming(free, skeleton, {"steps": 0.5 * draw(1, knots, 3), "coarse_steps": still, "turns": still})
    baked = bake(bent, 1e-6)
    assert len(baked.means) > 30
    at = baked.slice_at(torch.linspace(-0.9, 0.9, 61)).opacities
    covered = 1 - (1 - at).prod(dim=-1)
    assert (covered - opacity).abs().max() < 0.15
    assert WINDOW < 1


def test_a_free_start_is_the_scene_itself():
    views = make_views()
    free = start_free(make_gaussians())
    again = from_moving(bake(free, 0.0), 0.3)
    pictures = [scene.render(views.cameras, views.times).image for scene in (make_gaussians(), again)]
    assert psnr(*pictures).min() > 50
