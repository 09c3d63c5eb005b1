import pytest
import torch

from lrm4d.gaussians3d import (
    Gaussians3D,
    compose_covariances,
    decompose_covariances,
    pack_square,
    pack_symmetric,
    unpack_symmetric,
)
from lrm4d.rotations import quaternion_to_matrix


def random_covariances(*shape: int, spread: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    scales = torch.exp(spread * torch.randn(*shape, 3, generator=generator, dtype=torch.float64) - 3)
    return compose_covariances(scales, torch.randn(*shape, 4, generator=generator, dtype=torch.float64))


def test_packing_keeps_symmetric_matrices():
    packed = random_covariances(4, 5)
    assert torch.equal(pack_symmetric(unpack_symmetric(packed)), packed)
    assert torch.equal(unpack_symmetric(packed), unpack_symmetric(packed).mT)


def test_scales_and_quaternions_give_the_covariance_back():
    covariances = random_covariances(6, 500)
    scales, quaternions = decompose_covariances(covariances)
    assert scales.shape == (6, 500, 3) and quaternions.shape == (6, 500, 4)
    torch.testing.assert_close(compose_covariances(scales, quaternions), covariances, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(quaternions.norm(dim=-1), torch.ones(6, 500, dtype=torch.float64))
    torch.testing.assert_close(scales, torch.linalg.eigvalsh(unpack_symmetric(covariances)).sqrt())


def test_composing_is_the_formula():
    covariance = compose_covariances(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 0, 0, 1.0]))  # 90 degrees by z
    assert covariance.tolist() == pytest.approx([4, 0, 0, 1, 0, 9], abs=1e-5)


def test_float32_is_kept_and_flat_gaussians_stay_exact():
    covariances = random_covariances(2000, spread=2.0).float()
    scales, quaternions = decompose_covariances(covariances)
    assert scales.dtype == quaternions.dtype == torch.float32
    back = compose_covariances(scales, quaternions)
    size = unpack_symmetric(covariances).diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
    assert float(((back - covariances).abs() / size).max()) < 1e-6


@pytest.mark.parametrize(
    "covariance",
    [
        [0, 0, 0, 0, 0, 0],  # a point
        [1, 0, 0, 1, 0, 1],  # a ball
        [4, 0, 0, 4, 0, 1],  # a disc
        [0, 0, 0, 0, 0, 2],  # a line
        [1, 1, 1, 1, 1, 1],  # a line along the diagonal
        [1, 0, 0, 1, 0, -1e-9],  # what rounding makes of a flat one
    ],
)
def test_degenerate_covariances(covariance):
    packed = torch.tensor(covariance, dtype=torch.float64)
    scales, quaternions = decompose_covariances(packed)
    assert bool((scales >= 0).all())
    rotation = quaternion_to_matrix(quaternions)
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64))
    assert float(torch.linalg.det(rotation)) == pytest.approx(1)
    torch.testing.assert_close(compose_covariances(scales, quaternions), packed, rtol=0, atol=2e-9)


def test_selecting():
    gaussians = Gaussians3D(torch.arange(12.0).reshape(4, 3), torch.rand(4, 6), torch.rand(4), torch.rand(4, 3))
    chosen = gaussians.select(torch.tensor([False, True, False, True]))
    assert chosen.means.tolist() == [[3, 4, 5], [9, 10, 11]]
    assert torch.equal(chosen.covariances, gaussians.covariances[[1, 3]])
    assert torch.equal(chosen.opacities, gaussians.opacities[[1, 3]])
    assert torch.equal(chosen.colors, gaussians.colors[[1, 3]])


def test_a_packed_square_is_the_product_packed():
    factors = torch.randn(2, 5, 3, 4, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(pack_square(factors), pack_symmetric(factors @ factors.mT))
    assert torch.autograd.gradcheck(pack_square, factors)
