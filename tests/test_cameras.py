import math

import pytest
import torch

from lrm4d.cameras import (
    Cameras,
    convert_opengl_opencv,
    from_colmap,
    intrinsics_from_fov,
    invert_rigid,
    join_cameras,
    look_at,
    nearest_points_to_world_origin,
    plucker_rays,
    project,
    sphere_spans,
    to_colmap,
    unproject,
)
from lrm4d.rotations import quaternion_to_matrix


def random_cameras(count: int = 5, width: int = 12, height: int = 8) -> Cameras:
    generator = torch.Generator().manual_seed(count)
    origins = (
        torch.nn.functional.normalize(torch.randn(count, 3, generator=generator, dtype=torch.float64), dim=-1) * 3
    )
    poses = look_at(origins, torch.zeros(3, dtype=torch.float64))
    intrinsics = intrinsics_from_fov(0.9, width, height).double().repeat(count, 1, 1)
    intrinsics[:, 0, 1] = 0.3  # skew
    intrinsics[:, 1, 2] += 0.7
    return Cameras(poses, intrinsics, width, height)


def test_joined_cameras_are_the_parts_and_have_one_size():
    first, second = random_cameras(3), random_cameras(5)
    joined = join_cameras([first, second])
    assert (joined[:3].camera_to_world == first.camera_to_world).all()
    assert (joined[3:].intrinsics == second.intrinsics).all()
    side_by_side = join_cameras([first.reshape(-1, 1), second[:3].reshape(-1, 1)], dim=1)
    assert side_by_side.shape == (3, 2)
    assert (side_by_side[:, 1].camera_to_world == second[:3].camera_to_world).all()
    with pytest.raises(ValueError, match=r"\(12, 8\), \(24, 16\).*resize"):
        join_cameras([first, second.resize(24, 16)])


def test_unproject_inverts_project():
    cameras = random_cameras()
    points = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.5
    pixels, depth = project(cameras, points)
    torch.testing.assert_close(unproject(cameras, pixels, depth), points)


def test_rays_pass_through_pixel_centres():
    cameras = random_cameras()
    origins, directions = cameras.rays()
    assert origins.shape == (5, 1, 1, 3) and directions.shape == (5, 8, 12, 3)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(5, 8, 12, dtype=torch.float64))
    pixels, depth = project(cameras[:, None, None], origins + 2.5 * directions)
    assert (depth > 0).all()
    rows, columns = torch.meshgrid(torch.arange(8.0) + 0.5, torch.arange(12.0) + 0.5, indexing="ij")
    expected = torch.stack([columns, rows], dim=-1).double().expand(5, 8, 12, 2)
    torch.testing.assert_close(pixels, expected)


def test_world_to_camera_is_the_inverse():
    cameras = random_cameras()
    product = cameras.world_to_camera @ cameras.camera_to_world
    torch.testing.assert_close(product, torch.eye(4, dtype=torch.float64).expand(5, 4, 4))
    torch.testing.assert_close(invert_rigid(cameras.camera_to_world), torch.linalg.inv(cameras.camera_to_world))


def test_nerfstudio_convention():
    """nerfstudio's documentation: +X is right, +Y is up, +Z points back and away from the camera."""
    intrinsics = torch.tensor([[100.0, 0.0, 50.0], [0.0, 100.0, 50.0], [0.0, 0.0, 1.0]])
    cameras = Cameras(convert_opengl_opencv(torch.eye(4)), intrinsics, 100, 100)
    pixels, depth = project(cameras, torch.tensor([0.5, 1.0, -5.0]))
    torch.testing.assert_close(pixels, torch.tensor([60.0, 30.0]))  # right of the middle and above it
    torch.testing.assert_close(depth, torch.tensor(5.0))


def test_colmap_convention():
    """COLMAP's documentation: the pose maps world to camera, X right, Y down, Z forward; the centre is -R^T t."""
    quaternions = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    quaternions = quaternions / quaternions.norm(dim=-1, keepdim=True)
    quaternions = torch.where(quaternions[:, :1] < 0, -quaternions, quaternions)
    translations = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    poses = from_colmap(quaternions, translations)
    rotations = quaternion_to_matrix(quaternions)
    torch.testing.assert_close(poses[:, :3, 3], -(rotations.mT @ translations[..., None])[..., 0])
    back_quaternions, back_translations = to_colmap(poses)
    torch.testing.assert_close(back_quaternions, quaternions)
    torch.testing.assert_close(back_translations, translations)


def test_look_at_puts_the_target_in_the_middle_and_the_sky_up():
    pose = look_at(torch.tensor([2.0, -1.0, 1.5]), torch.tensor([0.1, 0.2, 0.0]))
    cameras = Cameras(pose, intrinsics_from_fov(1.0, 64, 48), 64, 48)
    pixels, _ = project(cameras, torch.tensor([0.1, 0.2, 0.0]))
    torch.testing.assert_close(pixels, torch.tensor([32.0, 24.0]))
    above, _ = project(cameras, torch.tensor([0.1, 0.2, 0.5]))
    assert above[1] < 24
    with pytest.raises(ValueError, match="up direction"):
        look_at(torch.tensor([0.0, 0.0, 2.0]), torch.zeros(3))


def test_field_of_view():
    intrinsics = intrinsics_from_fov(math.radians(90), 64, 48)
    torch.testing.assert_close(intrinsics[0, 0], torch.tensor(32.0))


def test_sphere_spans():
    origins = torch.tensor([[0.0, 0.0, -3.0], [0.0, 0.6, -3.0], [0.0, 5.0, -3.0], [0.0, 0.0, 0.0]])
    near, far = sphere_spans(origins, torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(near, torch.tensor([2.0, 2.2, 3.0, 0.0]))
    torch.testing.assert_close(far, torch.tensor([4.0, 3.8, 3.0, 1.0]))


def test_ray_coordinates_do_not_depend_on_where_the_origin_lies():
    origins, directions = random_cameras().rays()
    moved = origins + 0.7 * directions
    torch.testing.assert_close(plucker_rays(origins, directions), plucker_rays(moved, directions))
    nearest = nearest_points_to_world_origin(origins, directions)
    torch.testing.assert_close(nearest, nearest_points_to_world_origin(moved, directions))
    torch.testing.assert_close((nearest * directions).sum(-1), torch.zeros(5, 8, 12, dtype=torch.float64))


def test_resize_keeps_the_field_of_view():
    cameras = random_cameras()
    points = torch.randn(5, 3, dtype=torch.float64) * 0.3
    pixels, _ = project(cameras, points)
    larger, _ = project(cameras.resize(36, 24), points)
    torch.testing.assert_close(larger, 3 * pixels)
