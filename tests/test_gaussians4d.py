from dataclasses import replace

import pytest
import torch

from lrm4d.cameras import Cameras, intrinsics_from_fov, look_at
from lrm4d.gaussians3d import Gaussians3D, pack_symmetric, unpack_symmetric
from lrm4d.gaussians4d import Gaussians4D, load_extra, to_model_time
from lrm4d.rasterizer import rasterize


def random_gaussians(count: int = 200, seed: int = 0, dtype=torch.float64) -> Gaussians4D:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    return Gaussians4D(
        means=normal(count, 3) * 0.3,
        time_means=normal(count) * 0.5,
        scales=torch.exp(normal(count, 3) * 0.5 - 3),
        time_scales=torch.exp(normal(count) * 0.5 - 1),
        left_quaternions=normal(count, 4),
        right_quaternions=normal(count, 4),
        opacities=torch.sigmoid(normal(count)),
        colors=torch.sigmoid(normal(count, 3)),
        low_pass=0.1,
    )


def fixture() -> Gaussians4D:
    """The numeric fixture of the method notes."""

    def double(*values: float) -> torch.Tensor:
        return torch.tensor([values], dtype=torch.float64)

    return Gaussians4D(
        means=double(0.1, -0.2, 0.3),
        time_means=double(0.25)[0],
        scales=double(0.05, 0.1, 0.2),
        time_scales=double(0.4)[0],
        left_quaternions=double(1, 0.2, -0.3, 0.4),
        right_quaternions=double(0.9, -0.1, 0.25, 0.3),
        opacities=double(1)[0],
        colors=double(1, 1, 1),
    )


def test_fixture():
    gaussians = fixture()
    rows, columns = torch.triu_indices(4, 4)
    sigma = gaussians.space_time_covariances()[0, rows, columns].tolist()
    expected = [
        *(0.0027971244, -0.0008342799, 0.0030465714, 0.0048711664, 0.0441573504),
        *(-0.0088264483, -0.0480779578, 0.0530854307, 0.0501847313, 0.1124600945),
    ]
    assert sigma == pytest.approx(expected, abs=1e-10)
    moving = gaussians.to_moving()
    assert moving.velocities[0].tolist() == pytest.approx([0.0433146211, -0.4275112699, 0.4462447903], abs=1e-10)
    sliced = gaussians.slice_at(torch.tensor([0.5], dtype=torch.float64))
    assert sliced.means[0, 0].tolist() == pytest.approx([0.1108286553, -0.3068778175, 0.4115611976], abs=1e-10)
    assert sliced.opacities.item() == pytest.approx(0.757390470885624, abs=1e-14)
    expected = [0.0025861317, 0.0012481986, 0.0008728388, 0.0236034816, 0.0126280899, 0.0306907559]
    assert sliced.covariances[0, 0].tolist() == pytest.approx(expected, abs=1e-10)


def test_slices_are_the_conditional_of_the_joint_gaussian():
    """inv(inv(Sigma)[:3, :3]) and Sigma_xt / Sigma_tt, computed the slow way; symmetric and positive."""
    gaussians = random_gaussians()
    sigma = gaussians.space_time_covariances()
    moving = gaussians.to_moving()
    conditional = torch.linalg.inv(torch.linalg.inv(sigma)[:, :3, :3])
    torch.testing.assert_close(unpack_symmetric(moving.covariances), conditional)
    torch.testing.assert_close(moving.velocities, sigma[:, :3, 3] / sigma[:, 3:, 3])
    torch.testing.assert_close(moving.time_deviations.square(), sigma[:, 3, 3])
    assert (torch.linalg.eigvalsh(unpack_symmetric(moving.covariances)) > 0).all()


def test_means_move_in_straight_lines_and_opacities_peak_at_the_time_means():
    gaussians = random_gaussians()
    times = torch.linspace(-1, 1, 9, dtype=torch.float64)
    sliced = gaussians.slice_at(times)
    steps = sliced.means.diff(dim=0) / 0.25
    torch.testing.assert_close(steps, gaussians.to_moving().velocities.expand_as(steps))
    first = replace(gaussians, time_means=torch.full_like(gaussians.time_means, 0.25))
    sliced = first.slice_at(times)
    torch.testing.assert_close(sliced.opacities[5], gaussians.opacities)
    torch.testing.assert_close(sliced.means[5], gaussians.means)
    assert (sliced.opacities <= gaussians.opacities).all()


def test_symmetries_of_the_parameters():
    gaussians = random_gaussians()
    flipped = replace(gaussians, left_quaternions=-gaussians.left_quaternions)
    torch.testing.assert_close(flipped.space_time_covariances(), gaussians.space_time_covariances())
    static = replace(gaussians, right_quaternions=gaussians.left_quaternions)
    torch.testing.assert_close(static.to_moving().velocities, torch.zeros(200, 3, dtype=torch.float64))
    torch.testing.assert_close(static.to_moving().time_deviations, gaussians.time_scales)
    round_ = replace(
        gaussians,
        scales=torch.full_like(gaussians.scales, 0.2),
        time_scales=torch.full_like(gaussians.time_scales, 0.2),
    )
    identity = 0.04 * torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(round_.space_time_covariances(), identity.expand(200, 4, 4))


def test_gradients():
    gaussians = random_gaussians(3)
    names = list(gaussians.tensors())

    def sliced(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        result = replace(gaussians, **dict(zip(names, tensors, strict=True))).slice_at(
            torch.tensor([0.3], dtype=torch.float64)
        )
        return result.means, result.covariances, result.opacities

    inputs = [value.clone().requires_grad_() for value in gaussians.tensors().values()]
    assert torch.autograd.gradcheck(sliced, inputs)


def test_pack_symmetric_round_trip():
    packed = torch.randn(5, 6)
    matrices = unpack_symmetric(packed)
    torch.testing.assert_close(matrices, matrices.mT)
    torch.testing.assert_close(pack_symmetric(matrices), packed)


def cameras_around(count: int) -> Cameras:
    angles = torch.linspace(0, 5, count)
    origins = torch.stack([3 * angles.sin(), -3 * angles.cos(), torch.full_like(angles, 0.5)], dim=-1)
    return Cameras(look_at(origins, torch.zeros(3)), intrinsics_from_fov(0.9, 32, 24).expand(count, 3, 3), 32, 24)


def test_render_takes_one_time_a_camera():
    gaussians = random_gaussians(dtype=torch.float32)
    cameras, times = cameras_around(4), torch.tensor([0.0, 0.3, 0.6, 1.0])
    together = gaussians.render(cameras, times)
    assert together.image.shape == (4, 3, 24, 32) and together.alpha.shape == (4, 1, 24, 32)
    for index in range(4):
        one = gaussians.render(cameras[index : index + 1], times[index : index + 1])
        torch.testing.assert_close(one.image[0], together.image[index])
    with pytest.raises(ValueError, match="must agree"):
        gaussians.render(cameras, times[:3])


def test_render_uses_user_times():
    """A Gaussian that lives only around the middle of the clip is seen at time 0.5 and not at 0."""
    gaussians = replace(
        random_gaussians(dtype=torch.float32), time_means=torch.zeros(200), time_scales=torch.full((200,), 0.05)
    )
    gaussians = replace(gaussians, right_quaternions=gaussians.left_quaternions)
    alpha = gaussians.render(cameras_around(1).expand(2), torch.tensor([0.0, 0.5])).alpha
    assert alpha[0].max() == 0 and alpha[1].max() > 0.3
    assert to_model_time(torch.tensor([0.0, 0.5, 1.0])).tolist() == [-1, 0, 1]


def test_save_and_load(tmp_path):
    gaussians = random_gaussians(dtype=torch.float32)
    path = tmp_path / "deep" / "scene.safetensors"
    gaussians.save(path, {"scene": "fox"})
    loaded = Gaussians4D.load(path)
    assert loaded.low_pass == 0.1 and not loaded.compensate and load_extra(path) == {"scene": "fox"}
    for name, value in gaussians.tensors().items():
        torch.testing.assert_close(getattr(loaded, name), value, rtol=1e-3, atol=1e-3)
    assert [p.name for p in path.parent.iterdir()] == ["scene.safetensors"]  # nothing temporary is left


def test_broken_files_are_named(tmp_path):
    path = tmp_path / "scene.safetensors"
    with pytest.raises(ValueError, match="no such file"):
        Gaussians4D.load(path)
    random_gaussians(dtype=torch.float32).save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cut off"):
        Gaussians4D.load(path)
    from safetensors.torch import save_file

    save_file({"means": torch.zeros(1, 3)}, path)
    with pytest.raises(ValueError, match="not a saved scene"):
        Gaussians4D.load(path)


def test_what_is_left_out_of_a_moment_or_a_clip_changes_no_picture():
    gaussians = replace(random_gaussians(400, dtype=torch.float32), time_scales=torch.full((400,), 0.05))
    gaussians.means[7] = float("nan")
    moving = gaussians.to_moving()
    assert 0 < len(moving.visible().means) < 399
    pose = look_at(torch.tensor([0.0, -3, 1]), torch.zeros(3))
    camera = Cameras(pose, intrinsics_from_fov(0.8, 24, 18), 24, 18)[None, None]
    for time in (0.0, 0.3, 1.0):
        moment = moving.visible_at(time)
        assert 0 < len(moment.means) < len(moving.visible().means)
        whole = moving.slice_at(torch.tensor([2 * time - 1]))
        seen = rasterize(Gaussians3D(*(value[None] for value in vars(moment).values())), camera, torch.ones(3))
        torch.testing.assert_close(seen.image, rasterize(whole, camera, torch.ones(3)).image, rtol=0, atol=1e-5)
