import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrm4d.rotations import matrix_to_quaternion, quaternion_pair_to_so4, quaternion_to_matrix


def random_quaternions(seed: int, count: int = 64) -> torch.Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_quarter_turn_about_z_sends_x_to_y():
    half = 0.5**0.5
    matrix = quaternion_to_matrix(torch.tensor([half, 0.0, 0.0, half], dtype=torch.float64))
    turned = matrix @ torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(turned, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_matrices_are_rotations_and_turn_back_into_quaternions(seed):
    quaternions = random_quaternions(seed)
    matrices = quaternion_to_matrix(quaternions)
    identity = torch.eye(3, dtype=torch.float64).expand_as(matrices)
    torch.testing.assert_close(matrices @ matrices.mT, identity)
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(64, dtype=torch.float64))
    back = matrix_to_quaternion(matrices)
    unit = quaternions / quaternions.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(back, torch.where(unit[:, :1] < 0, -unit, unit))


@pytest.mark.parametrize("axis", range(3))
def test_half_turns_turn_back_into_quaternions(axis):
    """The trace is -1 there, where the textbook formula divides by zero."""
    quaternion = torch.zeros(4, dtype=torch.float64)
    quaternion[1 + axis] = 1
    matrix = quaternion_to_matrix(quaternion)
    torch.testing.assert_close(quaternion_to_matrix(matrix_to_quaternion(matrix)), matrix)


def test_pairs_are_rotations_of_space_time():
    matrices = quaternion_pair_to_so4(random_quaternions(0), random_quaternions(1))
    identity = torch.eye(4, dtype=torch.float64).expand_as(matrices)
    torch.testing.assert_close(matrices @ matrices.mT, identity)
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(64, dtype=torch.float64))


def test_equal_pairs_leave_time_alone():
    quaternions = random_quaternions(2)
    matrices = quaternion_pair_to_so4(quaternions, quaternions)
    w, x, y, z = quaternions.unbind(-1)
    expected = torch.zeros_like(matrices)
    expected[:, :3, :3] = quaternion_to_matrix(torch.stack([w, -z, -y, -x], dim=-1))
    expected[:, 3, 3] = 1
    torch.testing.assert_close(matrices, expected)
