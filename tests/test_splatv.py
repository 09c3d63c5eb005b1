import json
import math
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from export_scenes import assert_refused, beginnings, damaged, make_moving, render_moment

from lrm4d.export.splatv import read_splatv, write_splatv
from lrm4d.gaussians3d import Gaussians3D, pack_symmetric
from lrm4d.gaussians4d import MovingGaussians

TIMES = (0.0, 0.25, 0.6, 1.0)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "moving.splatv"
    write_splatv(path, *make_moving(3))
    return path


def split(content: bytes) -> tuple[list[dict], bytes]:
    """The header's chunks and what follows them."""
    magic, length = struct.unpack("<II", content[:8])
    assert magic == 0x674B
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def draw_as_splatv_does(content: bytes, time: float) -> Gaussians3D:
    """Every index of the texture at a time in [0, 1] by the arithmetic of splaTV's vertex shader."""
    chunks, data = split(content)
    texture = np.frombuffer(data, "<u4").reshape(chunks[0]["texheight"], chunks[0]["texwidth"], 4)
    index = np.arange(len(data) // 64)
    texels = [texture[index >> 10, ((index & 0x3FF) << 2) | k] for k in range(4)]
    static0, static1, motion0, motion1 = texels

    def halves(words: np.ndarray) -> np.ndarray:
        return np.stack([words & 0xFFFF, words >> 16], -1).astype(np.uint16).view(np.float16).astype(np.float64)

    t0, s = halves(motion1[:, 3]).T
    dt = time - t0
    fading = np.exp(-1.0 * (dt / s) ** 2)
    m = np.concatenate([halves(motion0[:, k]) for k in range(4)] + [halves(motion1[:, 0])], -1)
    moved = m[:, 0:3] * dt[:, None] + m[:, 3:6] * dt[:, None] ** 2 + m[:, 6:9] * dt[:, None] ** 3
    turned = np.concatenate([halves(motion1[:, 1]), halves(motion1[:, 2])], -1) * dt[:, None]
    rotation = np.concatenate([halves(static0[:, 3]), halves(static1[:, 0])], -1) + turned
    scale = np.concatenate([halves(static1[:, 1]), halves(static1[:, 2])], -1)[:, :3]
    w, x, y, z = (rotation / np.maximum(np.linalg.norm(rotation, axis=-1, keepdims=True), 1e-30)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    axes = np.stack([np.stack(row, -1) for row in rows], -2) * scale[:, None, :]
    rgba = np.stack([static1[:, 3] >> shift & 0xFF for shift in (0, 8, 16, 24)], -1) / 255
    means = static0[:, :3].copy().view("<f4") + moved
    shown = fading * rgba[:, 3] > 1e-4
    values = (means, axes @ axes.transpose(0, 2, 1), fading * rgba[:, 3], rgba[:, :3])
    means, covariances, opacities, colors = (torch.from_numpy(value[shown]) for value in values)
    return Gaussians3D(means, pack_symmetric(covariances), opacities, colors)


@pytest.mark.parametrize("time", TIMES)
def test_splatv_s_own_arithmetic_draws_our_picture(tmp_path, time):
    moving, cameras = make_moving()
    write_splatv(tmp_path / "a.splatv", moving, cameras)
    pictures = render_moment(moving.visible_at(time), cameras)
    assert float(pictures.std()) > 0.05
    theirs = render_moment(draw_as_splatv_does((tmp_path / "a.splatv").read_bytes(), time), cameras)
    assert float((theirs - pictures).square().mean().log10() * -10) > 45
    mine = render_moment(read_splatv(tmp_path / "a.splatv").visible_at(time), cameras)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-4)


def test_numbers_that_halves_and_bytes_can_hold_are_kept_exactly(tmp_path):
    """So nothing but rounding is lost: the slice of a 4D Gaussian is what the format means."""
    count = 40
    whole = torch.Generator().manual_seed(3)

    def draw(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, high, shape, generator=whole).float()

    scales = 2.0 ** -torch.tensor([5.0, 4.0, 3.0]).expand(count, 3)
    moving = MovingGaussians(
        means=draw(-99, 99, count, 3) / 77,
        velocities=draw(-99, 99, count, 3) / 64,
        covariances=pack_symmetric(torch.diag_embed(scales.square())),
        time_means=draw(-140, 140, count) / 128,
        time_deviations=draw(1, 200, count) / 128 * math.sqrt(2),
        opacities=draw(1, 256, count) / 255,
        colors=draw(0, 256, count, 3) / 255,
    )
    cameras = make_moving()[1]
    write_splatv(tmp_path / "a.splatv", moving, cameras)
    back = read_splatv(tmp_path / "a.splatv")
    for name, value in vars(moving).items():
        torch.testing.assert_close(getattr(back, name), value, rtol=1e-6, atol=1e-7, msg=name)
    for time in TIMES:
        expected = moving.slice_at(torch.tensor([2 * time - 1]))
        expected = Gaussians3D(*(value[0] for value in vars(expected).values())).select(expected.opacities[0] > 1e-4)
        theirs = draw_as_splatv_does((tmp_path / "a.splatv").read_bytes(), time)
        for name, value in vars(expected).items():
            torch.testing.assert_close(getattr(theirs, name).float(), value, rtol=2e-5, atol=1e-6, msg=name)


def test_a_round_trip_rounds_as_the_types_do(tmp_path):
    moving, cameras = make_moving(1500)
    write_splatv(tmp_path / "a.splatv", moving, cameras)
    back = read_splatv(tmp_path / "a.splatv")
    assert torch.equal(back.means, moving.means)
    torch.testing.assert_close(back.velocities, moving.velocities, rtol=2**-11, atol=1e-7)
    torch.testing.assert_close(back.time_means, moving.time_means, rtol=0, atol=2**-10)
    torch.testing.assert_close(back.time_deviations, moving.time_deviations, rtol=2**-11, atol=0)
    torch.testing.assert_close(back.colors, moving.colors, rtol=0, atol=0.5 / 255 + 1e-6)
    size = moving.covariances[:, [0, 3, 5]].sum(-1, keepdim=True)
    assert float(((back.covariances - moving.covariances) / size).abs().max()) < 2e-3


def test_the_layout(tmp_path):
    moving, cameras = make_moving(1030)
    write_splatv(tmp_path / "a.splatv", moving, cameras)
    chunks, data = split((tmp_path / "a.splatv").read_bytes())
    (chunk,) = chunks
    assert (chunk["type"], chunk["texwidth"], chunk["texheight"]) == ("splat", 4096, 2)
    assert chunk["size"] == len(data) == 2 * 1024 * 64
    for time in TIMES:
        assert len(draw_as_splatv_does((tmp_path / "a.splatv").read_bytes(), time).means) <= 1030
    assert len(chunk["cameras"]) == 2
    first = chunk["cameras"][0]  # splaTV's view matrix is [R^T, -R^T p]
    rotation, position = torch.tensor(first["rotation"]), torch.tensor(first["position"])
    view = torch.cat([rotation.mT, -(rotation.mT @ position)[:, None]], dim=-1)
    torch.testing.assert_close(view, cameras.world_to_camera[0, :3], rtol=0, atol=1e-5)
    assert first["fx"] == pytest.approx(float(cameras.intrinsics[0, 0, 0]))
    assert (first["width"], first["height"]) == (24, 18)


def test_what_cannot_be_written_is_said(tmp_path):
    moving, cameras = make_moving(3)
    batch = MovingGaussians(*(value[None] for value in vars(moving).values()))
    with pytest.raises(ValueError, match="one scene"):
        write_splatv(tmp_path / "a.splatv", batch, cameras)
    none = MovingGaussians(*(value[:0] for value in vars(moving).values()))
    for gaussians, seen_by in ((none, cameras), (moving, cameras[:0]), (moving, cameras[0])):
        with pytest.raises(ValueError, match="at least one of each"):
            write_splatv(tmp_path / "a.splatv", gaussians, seen_by)
    assert not list(tmp_path.iterdir())
    endless = replace(moving, time_deviations=torch.full((3,), 1e6))
    write_splatv(tmp_path / "a.splatv", endless, cameras)
    assert float(read_splatv(tmp_path / "a.splatv").time_deviations.min()) > 8e4


def test_a_file_that_is_cut_off_anywhere_or_too_long_is_refused(file):
    content = file.read_bytes()
    header = len(content) - 65536
    for beginning in beginnings(content[: header + 100]):
        assert_refused(file, beginning, read_splatv)
    for length in range(header + 100, len(content), 997):
        assert_refused(file, content[:length], read_splatv, "cut off")
    assert_refused(file, content + b"\0" * 64, read_splatv, "header gives")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        (b"Kg\0\0", b"Kg\0\1", "not a .splatv"),
        (b'[{"type"', b' {"type"', "not a list"),
        (b'"splat"', b'"audio"', "header gives"),
        (b'"size": 65536', b'"size": 65535', "header gives"),
        (b'"texwidth": 4096', b'"texwidth": 2048', "header gives"),
        (b'"texheight": 1', b'"texheight": 9', "header gives"),
        (b'"texheight": 1', b'"texheight":""', "not a list|header gives"),
        (b'"cameras"', b'"cam\xffras"', "not a list"),
    ],
)
def test_another_header_is_refused(file, old, new, match):
    content = file.read_bytes()
    assert old in content and len(old) == len(new)
    assert_refused(file, content.replace(old, new, 1), read_splatv, match)


@pytest.mark.parametrize(
    ("byte", "half", "match"),
    [(38, 1.0, "curves"), (48, 1.0, "curves"), (52, 1.0, "turn"), (32, np.nan, "finite"), (62, 0.0, "no time")],
)
def test_what_moving_gaussians_cannot_hold_is_refused(file, byte, half, match):
    content = bytearray(file.read_bytes())
    start = len(content) - 65536 + byte
    content[start : start + 2] = np.float16(half).tobytes()
    assert_refused(file, bytes(content), read_splatv, match)


def test_damage_is_refused_or_harmless_but_never_another_error(file):
    content = file.read_bytes()
    head = len(content) - 65536 + 192
    for changed in damaged(content[:head]):
        file.write_bytes(changed + content[head:])
        try:
            gaussians = read_splatv(file)
        except ValueError as error:
            assert str(file) in str(error)
        else:
            assert all(bool(value.isfinite().all()) for value in vars(gaussians).values())
