"""Rotations in three and four dimensions from quaternions (w, x, y, z). Quaternions need not be of unit length."""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize


def quaternion_to_matrix(quaternions: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation matrix of each quaternion (w, x, y, z), normalized first."""
    w, x, y, z = normalize(quaternions, dim=-1).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def rotation_vector_to_quaternion(vectors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """The unit quaternion (w, x, y, z) of a turn about each vector by its length, in radians; has a gradient at 0."""
    halves = vectors.square().sum(-1, keepdim=True).add(1e-12).sqrt() / 2
    return torch.cat([halves.cos(), vectors * (halves.sin() / (2 * halves))], dim=-1)


def matrix_to_quaternion(matrices: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """The unit quaternion (w, x, y, z), w >= 0, of each rotation matrix."""
    m = matrices
    trace = m.diagonal(dim1=-2, dim2=-1)
    # Every row is the same quaternion times four times one of its components; the longest row is the stable one.
    w = torch.stack(
        [
            1 + trace.sum(-1),
            m[..., 2, 1] - m[..., 1, 2],
            m[..., 0, 2] - m[..., 2, 0],
            m[..., 1, 0] - m[..., 0, 1],
        ],
        dim=-1,
    )
    x = torch.stack(
        [
            w[..., 1],
            1 + trace[..., 0] - trace[..., 1] - trace[..., 2],
            m[..., 1, 0] + m[..., 0, 1],
            m[..., 0, 2] + m[..., 2, 0],
        ],
        dim=-1,
    )
    y = torch.stack(
        [
            w[..., 2],
            x[..., 2],
            1 + trace[..., 1] - trace[..., 0] - trace[..., 2],
            m[..., 2, 1] + m[..., 1, 2],
        ],
        dim=-1,
    )
    z = torch.stack(
        [
            w[..., 3],
            x[..., 3],
            y[..., 3],
            1 + trace[..., 2] - trace[..., 0] - trace[..., 1],
        ],
        dim=-1,
    )
    rows = torch.stack([w, x, y, z], dim=-2)
    longest = rows.norm(dim=-1).argmax(dim=-1, keepdim=True)
    best = torch.take_along_dim(rows, longest[..., None], dim=-2).squeeze(-2)
    best = normalize(best, dim=-1)
    return torch.where(best[..., :1] < 0, -best, best)


def quaternion_pair_to_so4(
    left: Float[Tensor, "*batch 4"], right: Float[Tensor, "*batch 4"]
) -> Float[Tensor, "*batch 4 4"]:
    """The rotation L(left) R(right) of (x, y, z, t) space, both quaternions normalized first.

    The convention is the one in which equal quaternions leave time alone: for left == right == (w, x, y, z) the result
    is blockdiag(R3, 1) with R3 = quaternion_to_matrix((w, -z, -y, -x)). It is that of Yang et al., "Real-time
    Photorealistic Dynamic Scene Representation and Rendering with 4D Gaussian Splatting" (ICLR 2024).
    """
    pairs = normalize(left, dim=-1)[..., :, None] * normalize(right, dim=-1)[..., None, :]
    # Each entry is a sum of products of their components: one large product of matrices in place of many small ones.
    return (pairs.flatten(-2) @ _pair_basis(pairs.dtype, pairs.device)).unflatten(-1, (4, 4))


@lru_cache
def _pair_basis(dtype: torch.dtype, device: torch.device) -> Float[Tensor, "pair entry"]:
    """L(i) R(j) for all pairs of the basis quaternions 1, i, j, k, one a row."""
    (a, b, c, d), (p, q, r, s) = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    # The product p -> left p conj(right), the components of p listed as (z, y, x, w) = (x, y, z, t) of space-time.
    left_rows = ((a, b, -c, d), (-b, a, d, c), (c, -d, a, b), (-d, -c, -b, a))
    right_rows = ((p, q, -r, -s), (-q, p, s, -r), (r, -s, p, -q), (s, r, q, p))
    left, right = (torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2) for rows in (left_rows, right_rows))
    return (left[:, None] @ right).reshape(16, 16).to(device, dtype)


def so4_to_quaternion_pair(
    matrices: Float[Tensor, "*batch 4 4"],
) -> tuple[Float[Tensor, "*batch 4"], Float[Tensor, "*batch 4"]]:
    """Unit quaternions left and right with L(left) R(right) = each rotation of (x, y, z, t): the inverse of the above.

    The products of basis quaternions are orthogonal to each other, so a rotation's coordinates in them are the outer
    product of the two (van Elfrinkhof 1897); the sign that both may change together is left as it comes.
    """
    basis = _pair_basis(matrices.dtype, matrices.device)
    outer = (matrices.flatten(-2) @ basis.mT).unflatten(-1, (4, 4)) / 4
    longest = outer.norm(dim=-2).argmax(dim=-1)
    left = normalize(torch.take_along_dim(outer, longest[..., None, None], dim=-1).squeeze(-1), dim=-1)
    return left, normalize((outer.mT @ left[..., None]).squeeze(-1), dim=-1)
