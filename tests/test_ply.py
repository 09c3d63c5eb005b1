import json

import numpy as np
import pytest
import torch
from export_scenes import assert_refused, beginnings, damaged, make_moment, make_moving, render_moment

from lrm4d.export.ply import COLUMNS, read_ply, write_ply, write_ply_frames
from lrm4d.gaussians3d import Gaussians3D, pack_symmetric
from lrm4d.rotations import quaternion_to_matrix


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "moment.ply"
    write_ply(path, make_moment(5)[0])
    return path


def read_as_others_do(content: bytes) -> Gaussians3D:
    """What the exporters of gsplat and nerfstudio mean by their columns; shares no code with lrm4d.export."""
    header, body = content.split(b"end_header\n", 1)
    names = [line.split()[2] for line in header.decode().splitlines() if line.startswith("property float ")]
    count = int(header.split(b"element vertex ")[1].split()[0])
    table = dict(zip(names, np.frombuffer(body, "<f4").reshape(count, len(names)).T.astype(np.float64), strict=True))
    w, x, y, z = (table[f"rot_{i}"] for i in range(4))
    length = np.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w / length, x / length, y / length, z / length
    axes = [
        [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
    ]
    variances = [np.exp(table[f"scale_{i}"]) ** 2 for i in range(3)]
    covariances = [
        sum(axes[i][k] * axes[j][k] * variances[k] for k in range(3))
        for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    ]
    columns = (
        np.stack([table["x"], table["y"], table["z"]], -1),
        np.stack(covariances, -1),
        1 / (1 + np.exp(-table["opacity"])),
        np.stack([0.28209479177387814 * table[f"f_dc_{i}"] + 0.5 for i in range(3)], -1),
    )
    return Gaussians3D(*(torch.from_numpy(column).float() for column in columns))


@pytest.mark.parametrize("read", [read_ply, lambda path: read_as_others_do(path.read_bytes())])
def test_a_round_trip_and_what_others_read_is_the_same_scene_and_picture(tmp_path, read):
    gaussians, cameras = make_moment()
    write_ply(tmp_path / "a.ply", gaussians)
    back = read(tmp_path / "a.ply")
    torch.testing.assert_close(back.means, gaussians.means, rtol=0, atol=0)
    torch.testing.assert_close(back.covariances, gaussians.covariances, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(back.opacities, gaussians.opacities, rtol=0, atol=2e-7)
    torch.testing.assert_close(back.colors, gaussians.colors, rtol=0, atol=2e-7)
    pictures = render_moment(gaussians, cameras)
    assert float(pictures.std()) > 0.05
    torch.testing.assert_close(render_moment(back, cameras), pictures, rtol=0, atol=2e-5)


def test_the_columns_are_those_of_the_format_in_its_order(file):
    content = file.read_bytes()
    header = content[: content.index(b"end_header")].decode("ascii").splitlines()
    assert header[:2] == ["ply", "format binary_little_endian 1.0"]
    assert "element vertex 5" in header
    wanted = "x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
    assert [line.split()[-1] for line in header if line.startswith("property float")] == wanted.split()
    numbers = np.frombuffer(content.split(b"end_header\n", 1)[1], "<f4").reshape(5, 17)
    assert np.isfinite(numbers).all() and not numbers[:, 3:6].any()


def test_columns_of_other_orders_and_types_and_what_follows_them_are_read(file, tmp_path):
    rows = np.frombuffer(file.read_bytes().split(b"end_header\n", 1)[1], "<f4").reshape(5, 17)
    order = [7, 0, 3, 16, 12, 9, 10, 11, 13, 14, 15, 8, 6, 2, 1]
    table = np.zeros(5, [(COLUMNS[i], "<f8") for i in order] + [("f_rest_0", "<f4"), ("red", "u1")])
    for i in order:
        table[COLUMNS[i]] = rows[:, i]
    lines = ["ply", "comment from elsewhere", "format binary_little_endian 1.0", "element vertex 5"]
    lines += [f"property double {COLUMNS[i]}" for i in order] + ["property float32 f_rest_0", "property uchar red"]
    lines += ["element face 0", "property list uchar int vertex_indices", "end_header", ""]
    other = tmp_path / "other.ply"
    other.write_bytes("\r\n".join(lines).encode() + table.tobytes())
    for mine, theirs in zip(vars(read_ply(file)).values(), vars(read_ply(other)).values(), strict=True):
        assert torch.equal(mine, theirs)


def test_what_gsplat_s_exporter_writes_is_read(tmp_path):
    exporter = pytest.importorskip("gsplat.exporter")
    generator = torch.Generator().manual_seed(0)
    means, sh = (torch.randn(30, 3, generator=generator) for _ in range(2))
    scales = torch.randn(30, 3, generator=generator) - 3
    quaternions, logits = torch.randn(30, 4, generator=generator), torch.randn(30, generator=generator)
    path = tmp_path / "theirs.ply"
    exporter.export_splats(
        means, scales, quaternions, logits, sh[:, None], torch.zeros(30, 0, 3), format="ply", save_to=str(path)
    )
    gaussians = read_ply(path)
    factors = quaternion_to_matrix(quaternions) * scales.exp()[:, None, :]
    torch.testing.assert_close(gaussians.means, means)
    torch.testing.assert_close(gaussians.covariances, pack_symmetric(factors @ factors.mT), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(gaussians.opacities, logits.sigmoid())
    torch.testing.assert_close(gaussians.colors, (0.5 + 0.28209479 * sh).clamp(min=0))


def test_a_moment_without_gaussians(tmp_path):
    gaussians = make_moment()[0]
    write_ply(tmp_path / "a.ply", gaussians.select(torch.zeros(60, dtype=torch.bool)))
    assert read_ply(tmp_path / "a.ply").means.shape == (0, 3)


def test_frames_are_the_slices_at_their_times(tmp_path):
    moving, _ = make_moving()
    seen = []
    counts = write_ply_frames(tmp_path / "f", moving, torch.linspace(0, 1, 3), lambda *step: seen.append(step))
    paths = list(counts)
    assert [path.name for path in paths] == ["frame_000.ply", "frame_001.ply", "frame_002.ply"]
    assert seen == [("frames", 1, 3), ("frames", 2, 3), ("frames", 3, 3)]
    listed = json.loads((tmp_path / "f" / "frames.json").read_text())["frames"]
    assert [(entry["file"], entry["time"]) for entry in listed] == list(
        zip([path.name for path in paths], [0, 0.5, 1], strict=True)
    )
    for path, entry in zip(paths, listed, strict=True):
        moment, read = moving.visible_at(entry["time"]), read_ply(path)
        assert torch.equal(read.means, moment.means) and len(moment.means) == entry["gaussians"] == counts[path]
        assert float(read.opacities.min()) > 0.999 / 255
    with pytest.raises(ValueError, match=r"frame_000\.ply: is a file"):
        write_ply_frames(paths[0], moving, torch.zeros(1))


def test_a_file_that_is_cut_off_anywhere_or_too_long_is_refused(file):
    content = file.read_bytes()
    for beginning in beginnings(content):
        assert_refused(file, beginning, read_ply)
    assert_refused(file, content + b"\0", read_ply, "follow the header")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        (b"ply\n", b"plx\n", "not a .ply"),
        (b"binary_little_endian", b"binary_big_endian", "expected 'format binary_little_endian"),
        (b"binary_little_endian", b"ascii", "expected 'format binary_little_endian"),
        (b"element vertex 5", b"element chunk 1\nproperty float min_x\nelement vertex 5", "element chunk 1"),
        (b"element vertex 5", b"element vertex -5", "element vertex -5"),
        (b"element vertex 5", b"element vertex 99999999999999", "cut off"),
        (b"element vertex 5", b"element vertex 4", "follow the header"),
        (b"property float opacity", b"property float opacities", "missing or twice: opacity"),
        (b"property float nx", b"property float x", "missing or twice"),
        (b"property float nx", b"property list uchar int nx", "cannot read"),
        (b"property float nx", b"property half nx", "cannot read"),
        (b"property float nx", b"property float f_rest_0", None),
        (b"end_header", b"end_of_header", "no end_header"),
    ],
)
def test_another_header_is_refused(file, old, new, match):
    content = file.read_bytes()
    assert old in content
    if match:
        assert_refused(file, content.replace(old, new), read_ply, match)
    else:
        file.write_bytes(content.replace(old, new))  # normals are zero, and so is this direction's part
        assert len(read_ply(file).means) == 5


@pytest.mark.parametrize(("column", "value", "match"), [("x", np.nan, "finite"), ("scale_0", 999, "finite")])
def test_numbers_that_are_none_are_refused(file, column, value, match):
    header, body = file.read_bytes().split(b"end_header\n")
    rows = np.frombuffer(body, "<f4").reshape(5, 17).copy()
    rows[2, COLUMNS.index(column)] = value
    assert_refused(file, header + b"end_header\n" + rows.tobytes(), read_ply, match)


def test_colors_that_depend_on_the_direction_are_refused(file):
    header, body = file.read_bytes().replace(b" nx", b" f_rest_0").split(b"end_header\n")
    rows = np.frombuffer(body, "<f4").reshape(5, 17).copy()
    rows[2, 3] = 0.1
    assert_refused(file, header + b"end_header\n" + rows.tobytes(), read_ply, "direction")


def test_damage_is_refused_or_harmless_but_never_another_error(file):
    content = file.read_bytes()
    for changed in damaged(content):
        file.write_bytes(changed)
        try:
            gaussians = read_ply(file)
        except ValueError as error:
            assert str(file) in str(error)
        else:
            assert all(bool(value.isfinite().all()) for value in vars(gaussians).values())


def test_a_write_that_fails_leaves_what_was_there(file):
    before = file.read_bytes()
    with pytest.raises(OSError):
        write_ply(file / "inside_a_file.ply", make_moment()[0])
    broken = make_moment()[0]
    broken.covariances[0] = float("nan")
    with pytest.raises(RuntimeError):
        write_ply(file, broken)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["moment.ply"]
