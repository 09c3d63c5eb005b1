"""Triangles to samples, against a slow loop."""

import torch

from data_tools.rasterize_triangles import farthest_depths, rasterize_triangles
from data_tools.shapes import COLUMNS, ROWS, grid_corners, grid_faces


def depths_by_loop(corners, pictures, count, height, width, pick=min, none=float("inf")):
    """Depth of the nearest (pick) front-facing triangle at every sample, `none` without one; a sample at a time."""
    depth = torch.full((count, height, width), none)
    for triangle, picture in zip(corners.double(), pictures.tolist(), strict=True):
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = triangle.tolist()
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area >= -1e-6 or min(az, bz, cz) <= 0.05:  # front faces are counter-clockwise as seen, y being down
            continue
        for row in range(height):
            for column in range(width):
                x, y = column + 0.5, row + 0.5
                a = ((bx - x) * (cy - y) - (cx - x) * (by - y)) / area
                b = ((cx - x) * (ay - y) - (ax - x) * (cy - y)) / area
                c = 1 - a - b
                if min(a, b, c) >= 0:
                    z = 1 / (a / az + b / bz + c / cz)
                    depth[picture, row, column] = pick(depth[picture, row, column], z)
    return depth


def random_triangles() -> tuple[torch.Tensor, torch.Tensor, int, int, int]:
    generator = torch.Generator().manual_seed(0)
    count, height, width, triangles = 3, 15, 18, 60
    corners = torch.rand(triangles, 3, 3, generator=generator) * torch.tensor([28.0, 25.0, 3.0]) - torch.tensor(
        [5.0, 5.0, -0.5]
    )
    corners[0, 0, 2] = -1  # behind the camera
    return corners, torch.randint(0, count, (triangles,), generator=generator), count, height, width


def test_the_farthest_backs_are_those_of_a_slow_loop():
    corners, *rest = random_triangles()
    seen_from_behind = corners[:, [0, 2, 1]]
    expected = depths_by_loop(seen_from_behind, *rest, pick=max, none=0.0).flatten()
    assert 0.2 < (expected > 0).float().mean() < 0.9
    torch.testing.assert_close(farthest_depths(corners, *rest), expected, rtol=1e-4, atol=1e-4)


def test_slivers_stay_between_their_corners():
    """Nearly along the ray, a triangle's plane reaches any depth a hair outside of its edges."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 2000, 3, generator=generator) * torch.tensor([16.0, 16.0, 2.0]) + 0.5
    aside = 1e-3 * torch.rand(2000, 3, generator=generator)
    for middle in (0.5 * (a + b) + aside, 0.5 * (a + b) - aside):
        corners = torch.stack([a, b, middle], dim=1)
        pictures = torch.zeros(2000, dtype=torch.long)
        samples = rasterize_triangles(corners, pictures, 1, 16, 16)
        ends = corners[samples.triangles, :, 2]
        assert len(samples.index) > 20
        assert (samples.depth >= ends.amin(1)).all() and (samples.depth <= ends.amax(1)).all()
        backs = farthest_depths(corners, pictures, 1, 16, 16)
        assert backs.max() <= corners[..., 2].max()


def test_samples_are_those_of_a_slow_loop():
    corners, pictures, count, height, width = random_triangles()
    samples = rasterize_triangles(corners, pictures, count, height, width)
    expected = depths_by_loop(corners, pictures, count, height, width).flatten()
    found = torch.full_like(expected, float("inf"))
    found[samples.index] = samples.depth
    close = (found - expected).abs() < 1e-3
    # A sample within the edges' tolerance may differ; it must be rare.
    assert (close | (found == expected)).float().mean() > 0.995
    assert torch.isfinite(expected).float().mean() > 0.3
    torch.testing.assert_close(samples.weights.sum(-1), torch.ones_like(samples.depth))
    at = (corners[samples.triangles, :, 2] ** -1 * 0 + corners[samples.triangles, :, 2]) * samples.weights
    torch.testing.assert_close(at.sum(-1), samples.depth, rtol=1e-3, atol=1e-3)


def test_the_order_of_triangles_does_not_matter():
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(40, 3, 3, generator=generator) * torch.tensor([20.0, 20.0, 1.0]) + torch.tensor([0, 0, 1.0])
    pictures = torch.zeros(40, dtype=torch.long)
    order = torch.randperm(40, generator=generator)
    one = rasterize_triangles(corners, pictures, 1, 20, 20)
    two = rasterize_triangles(corners[order], pictures, 1, 20, 20)
    torch.testing.assert_close(one.index, two.index)
    torch.testing.assert_close(one.triangles, order[two.triangles])


def test_neighbouring_triangles_leave_no_gap():
    # A fan around an odd point fills its polygon: every sample well inside is covered.
    angles = torch.linspace(0, 2 * torch.pi, 24)[:-1]
    rim = torch.stack([16.3 + 12 * angles.cos(), 15.7 - 12 * angles.sin(), torch.full_like(angles, 2.0)], -1)
    centre = torch.tensor([16.3, 15.7, 2.0]).expand_as(rim)
    fan = torch.stack([centre, rim, rim.roll(-1, 0)], 1)
    samples = rasterize_triangles(fan, torch.zeros(len(fan), dtype=torch.long), 1, 32, 32)
    covered = torch.zeros(32 * 32, dtype=torch.bool)
    covered[samples.index] = True
    rows, columns = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(32) + 0.5, indexing="ij")
    inside = ((columns - 16.3) ** 2 + (rows - 15.7) ** 2).sqrt() < 11.5
    assert covered.view(32, 32)[inside].all()


def test_nothing_to_see_gives_no_samples():
    corners = torch.tensor([[[0.0, 0.0, 1.0], [5.0, 0.0, 1.0], [5.0, 5.0, 1.0]]])  # a back face
    samples = rasterize_triangles(corners, torch.zeros(1, dtype=torch.long), 1, 8, 8)
    assert len(samples.index) == 0 and samples.weights.shape == (0, 3)


def test_corners_of_the_grid_are_those_of_its_faces():
    values = torch.rand(2, ROWS * COLUMNS, 3)
    torch.testing.assert_close(grid_corners(values), values[:, grid_faces()], rtol=0, atol=0)
