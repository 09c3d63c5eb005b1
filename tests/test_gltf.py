import base64
import json
import struct

import numpy as np
import pytest
import torch
from export_scenes import assert_refused, beginnings, damaged, make_moment, render_moment

from lrm4d.export.gltf import read_gltf, write_gltf
from lrm4d.gaussians3d import Gaussians3D, pack_symmetric

BOTH = pytest.mark.parametrize("suffix", ["glb", "gltf"])
PREFIX = "KHR_gaussian_splatting:"


def take_apart(content: bytes) -> tuple[dict, bytes]:
    """The JSON and the binary chunk of a .glb, by the specification; shares no code with lrm4d.export."""
    magic, version, length = struct.unpack_from("<III", content)
    assert (magic, version, length) == (0x46546C67, 2, len(content))
    size, kind = struct.unpack_from("<II", content, 12)
    assert kind == 0x4E4F534A and size % 4 == 0
    text, rest = content[20 : 20 + size], content[20 + size :]
    binary_size, binary_kind = struct.unpack_from("<II", rest)
    assert binary_kind == 0x004E4942 and binary_size % 4 == 0 and len(rest) == 8 + binary_size
    return json.loads(text), rest[8:]


def put_together(document: dict, binary: bytes) -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(binary), 0x004E4942) + binary
    return struct.pack("<III", 0x46546C67, 2, 12 + len(chunks)) + chunks


def column(document: dict, binary: bytes, name: str) -> np.ndarray:
    """An attribute's numbers, by the specification."""
    primitive = document["meshes"][0]["primitives"][0]
    accessor = document["accessors"][primitive["attributes"][name]]
    view = document["bufferViews"][accessor["bufferView"]]
    width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
    assert view["byteOffset"] % 4 == 0 and view["byteLength"] == 4 * width * accessor["count"]
    data = binary[view["byteOffset"] :][: view["byteLength"]]
    return np.frombuffer(data, "<f4").reshape(-1, width).astype(np.float64)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "moment.glb"
    write_gltf(path, make_moment(5)[0])
    return path


@BOTH
def test_a_round_trip_is_the_same_scene_and_picture(tmp_path, suffix):
    gaussians, cameras = make_moment()
    path = tmp_path / f"a.{suffix}"
    write_gltf(path, gaussians)
    back = read_gltf(path)
    torch.testing.assert_close(back.means, gaussians.means, rtol=0, atol=0)
    torch.testing.assert_close(back.covariances, gaussians.covariances, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(back.opacities, gaussians.opacities, rtol=0, atol=0)
    torch.testing.assert_close(back.colors, gaussians.colors, rtol=0, atol=2e-7)
    pictures = render_moment(gaussians, cameras)
    torch.testing.assert_close(render_moment(back, cameras), pictures, rtol=0, atol=2e-5)


def test_the_specification_s_formulas_give_the_covariances_in_a_world_with_y_up(tmp_path):
    gaussians, _ = make_moment()
    write_gltf(tmp_path / "a.glb", gaussians)
    document, binary = take_apart((tmp_path / "a.glb").read_bytes())
    matrix = np.array(document["nodes"][0]["matrix"]).reshape(4, 4).T
    assert np.array_equal(matrix @ [0, 0, 1, 1], [0, 1, 0, 1])  # our up is theirs
    assert np.linalg.det(matrix) == 1
    x, y, z, w = column(document, binary, PREFIX + "ROTATION").T
    assert np.allclose(x * x + y * y + z * z + w * w, 1, atol=1e-6)
    sx, sy, sz = column(document, binary, PREFIX + "SCALE").T
    rows = [
        [sx * (1 - 2 * (y * y + z * z)), sy * 2 * (x * y - w * z), sz * 2 * (x * z + w * y)],
        [sx * 2 * (x * y + w * z), sy * (1 - 2 * (x * x + z * z)), sz * 2 * (y * z - w * x)],
        [sx * 2 * (x * z - w * y), sy * 2 * (y * z + w * x), sz * (1 - 2 * (x * x + y * y))],
    ]
    factors = np.stack([np.stack(row, -1) for row in rows], -2)
    turned = matrix[:3, :3] @ factors
    covariances = turned @ turned.transpose(0, 2, 1)
    xx, xy, xz, yy, yz, zz = gaussians.covariances.double().numpy().T
    expected = np.stack([xx, xz, -xy, zz, -yz, yy], -1)  # of (x, z, -y)
    assert np.allclose(pack_symmetric(torch.from_numpy(covariances)), expected, rtol=1e-5, atol=1e-7)
    colors = 0.28209479177387814 * column(document, binary, PREFIX + "SH_DEGREE_0_COEF_0") + 0.5
    assert np.allclose(colors, gaussians.colors, atol=1e-6)
    assert np.array_equal(column(document, binary, PREFIX + "OPACITY")[:, 0].astype("f4"), gaussians.opacities)


@BOTH
def test_the_document_is_what_the_specification_asks(tmp_path, suffix):
    gaussians, _ = make_moment(7)  # 7 * 14 floats
    path = tmp_path / f"a.{suffix}"
    write_gltf(path, gaussians)
    if suffix == "glb":
        document, binary = take_apart(path.read_bytes())
        assert "uri" not in document["buffers"][0]
    else:
        document = json.loads(path.read_text())
        binary = base64.b64decode(document["buffers"][0]["uri"].partition("base64,")[2])
    assert document["asset"]["version"] == "2.0"
    assert document["extensionsUsed"] == ["KHR_gaussian_splatting"]
    primitive = document["meshes"][0]["primitives"][0]
    assert primitive["mode"] == 0
    wanted = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
    assert primitive["extensions"] == {"KHR_gaussian_splatting": wanted}
    assert document["buffers"][0]["byteLength"] == len(binary) == 7 * 14 * 4
    positions = column(document, binary, "POSITION")
    accessor = document["accessors"][primitive["attributes"]["POSITION"]]
    assert np.array_equal(positions.min(0), accessor["min"]) and np.array_equal(positions.max(0), accessor["max"])


def test_nodes_of_others_are_applied(file):
    """Translation, rotation and scale of a node over a node, twice the same mesh."""
    document, binary = take_apart(file.read_bytes())
    document["nodes"] = [
        {"children": [1, 2]},
        {"mesh": 0, "translation": [0, 1, 0], "rotation": [0, 0.5**0.5, 0, 0.5**0.5], "scale": [2, 2, 2]},
        {"mesh": 0},
    ]
    file.write_bytes(put_together(document, binary))
    whole = read_gltf(file)
    write_gltf(file, make_moment(5)[0])
    ours = read_gltf(file)  # in our world; the file's numbers are the same but taken as y up
    to_ours = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    by_y = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # a quarter turn by y
    torch.testing.assert_close(whole.means[5:], ours.means @ to_ours.mT)
    expected = (2 * ours.means @ by_y.mT + torch.tensor([0.0, 1, 0])) @ to_ours.mT
    torch.testing.assert_close(whole.means[:5], expected, rtol=1e-5, atol=1e-6)
    volumes = [float(torch.linalg.det(_unpack(part)).sqrt()[4]) for part in (whole, ours)]
    assert volumes[0] == pytest.approx(8 * volumes[1], rel=1e-4)


def _unpack(gaussians: Gaussians3D) -> torch.Tensor:
    return gaussians.covariances.double()[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].unflatten(-1, (3, 3))


def test_what_cannot_be_written_is_said_and_nothing_is_touched(file):
    before = file.read_bytes()
    gaussians, _ = make_moment(5)
    with pytest.raises(ValueError, match="no Gaussian is visible"):
        write_gltf(file, gaussians.select(torch.zeros(5, dtype=torch.bool)))
    with pytest.raises(ValueError, match=r"\.glb or \.gltf"):
        write_gltf(file.with_suffix(".obj"), gaussians)
    assert file.read_bytes() == before and len(list(file.parent.iterdir())) == 1


@BOTH
def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    write_gltf(path, make_moment(4)[0])
    for beginning in beginnings(path.read_bytes()):
        assert_refused(path, beginning, read_gltf)


def test_too_long_a_file_is_refused(file):
    assert_refused(file, file.read_bytes() + b"\0\0\0\0", read_gltf, "cut off")


def edit(document: dict, path: str, value) -> None:
    *way, last = (int(step) if step.isdecimal() else step for step in path.split("/"))
    for step in way:
        document = document[step]
    if value is None:
        del document[last]
    else:
        document[last] = value


PRIMITIVE = "meshes/0/primitives/0"
KIND = f"{PRIMITIVE}/extensions/KHR_gaussian_splatting"


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        ("asset/version", "1.0", "not glTF 2.0"),
        ("asset", None, "not glTF 2.0"),
        ("scenes", None, "not a sound glTF"),
        ("nodes/0/mesh", 7, "not a sound glTF"),
        ("nodes/0/matrix", [1, 2], "not a sound glTF"),
        ("nodes/0/children", [0], "twice"),
        (f"{PRIMITIVE}/extensions", None, "holds no Gaussians"),
        (f"{KIND}/kernel", "other", "only kernel ellipse"),
        (f"{KIND}/colorSpace", "lin_rec709_display", "only kernel ellipse"),
        (f"{KIND}/extensions", {"KHR_gaussian_splatting_compression": {}}, "uncompressed"),
        (f"{PRIMITIVE}/attributes/{PREFIX}SCALE", None, "SCALE"),
        (f"{PRIMITIVE}/attributes/{PREFIX}SH_DEGREE_1_COEF_0", 4, "direction"),
        (f"{PRIMITIVE}/attributes/{PREFIX}SCALE", 4, "negative scale"),
        ("accessors/0/count", 4, "unequal counts"),
        ("accessors/4/count", 6, "cut off"),
        ("accessors/4/count", 10**15, "cut off"),
        ("accessors/0/count", -3, "expected a plain one"),
        ("accessors/0/byteOffset", -4, "expected a plain one"),
        ("accessors/0/componentType", 5123, "of float"),
        ("accessors/0/type", "VEC2", "VEC3"),
        ("accessors/0/sparse", {}, "expected a plain one"),
        ("bufferViews/4/byteOffset", 10**6, "cut off"),
        ("buffers/0/byteLength", 10**6, "cut off"),
        ("buffers/0/uri", "elsewhere.bin", "another file"),
        ("buffers/0/uri", "data:;base64,AA!A", "base64"),
    ],
)
def test_another_document_is_refused(file, path, value, match):
    document, binary = take_apart(file.read_bytes())
    edit(document, path, value)
    assert_refused(file, put_together(document, binary), read_gltf, match)


@pytest.mark.parametrize(
    ("start", "content", "match"),
    [
        (0, b"glTg", "not glTF"),
        (4, b"\3", "version 3"),
        (16, b"JSOM", "no JSON chunk"),
        (20, b"}", "no JSON"),
        (12, b"\xff\xff\xff\xff", "does not end"),
    ],
)
def test_another_container_is_refused(file, start, content, match):
    whole = file.read_bytes()
    assert_refused(file, whole[:start] + content + whole[start + len(content) :], read_gltf, match)


def test_numbers_that_are_none_are_refused(file):
    document, binary = take_apart(file.read_bytes())
    assert_refused(file, put_together(document, np.float32(np.nan).tobytes() + binary[4:]), read_gltf, "finite")


@BOTH
def test_damage_is_refused_or_harmless_but_never_another_error(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    write_gltf(path, make_moment(4)[0])
    content = path.read_bytes()
    for changed in damaged(content, 400):
        path.write_bytes(changed)
        try:
            gaussians = read_gltf(path)
        except ValueError as error:
            assert str(path) in str(error)
        else:
            assert all(bool(value.isfinite().all()) for value in vars(gaussians).values())
