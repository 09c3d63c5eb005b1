"""glTF 2.0 with KHR_gaussian_splatting, as .glb or as .gltf with its data inside: one moment of a scene.

Follows the extension as the Khronos Group ratified it (2026; kernel "ellipse"). The drafts up to February 2026 had
logarithms in SCALE; the ratified text has the standard deviations themselves, and so do we. Every transform:
- POSITION: the means, as they are. glTF is y up, our world z up: the node's matrix turns (x, y, z) into (x, z, -y);
  the data are not turned.
- SCALE: standard deviations. ROTATION: unit quaternion x, y, z, w. OPACITY: in [0, 1].
- SH_DEGREE_0_COEF_0 = (color - 0.5) / C0, color space srgb_rec709_display: what pictures hold, no linear light.
All float32. No COLOR_0, no material: a viewer that does not know the extension shows points.
Lost: time, low_pass and compensate; the extension knows no low-pass, and sorts by distance from the camera where we
sort by depth.
"""

import base64
import binascii
import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.checkpoint import atomic_path
from lrm4d.export.ply import colors_to_sh, sh_to_colors
from lrm4d.gaussians3d import Gaussians3D, compose_covariances, decompose_covariances, pack_symmetric, unpack_symmetric
from lrm4d.rotations import quaternion_to_matrix

EXTENSION = "KHR_gaussian_splatting"
ATTRIBUTES = {
    "POSITION": 3,
    f"{EXTENSION}:ROTATION": 4,
    f"{EXTENSION}:SCALE": 3,
    f"{EXTENSION}:OPACITY": 1,
    f"{EXTENSION}:SH_DEGREE_0_COEF_0": 3,
}
"""The attributes of a primitive and how many floats each has."""
TYPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}
FLOAT, ARRAY_BUFFER, POINTS = 5126, 34962, 0
Z_UP_TO_Y_UP = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]], dtype=torch.float64)
"""The node's matrix: our world to glTF's."""
GLB_MAGIC, JSON_CHUNK, BIN_CHUNK = b"glTF", b"JSON", b"BIN\0"
DATA_URI = "data:application/octet-stream;base64,"


# Writing


def write_gltf(path: str | Path, gaussians: Gaussians3D) -> None:
    """Write Gaussians of batch shape [], at least one, atomically as .glb or .gltf (by the path's extension)."""
    path = Path(path)
    if path.suffix.lower() not in (".glb", ".gltf"):
        raise ValueError(f"{path}: expected a name that ends in .glb or .gltf.")
    if not len(gaussians.means):
        raise ValueError(f"{path}: no Gaussian is visible at this time, and glTF has no empty files; take another.")
    scales, quaternions = decompose_covariances(gaussians.covariances)
    arrays = [
        gaussians.means,
        quaternions.roll(-1, dims=-1),
        scales,
        gaussians.opacities[:, None],
        colors_to_sh(gaussians.colors),
    ]
    data = [array.detach().cpu().float().numpy().astype("<f4") for array in arrays]
    binary = b"".join(array.tobytes() for array in data)
    document = _document(data)
    with atomic_path(path) as temporary:
        if path.suffix.lower() == ".glb":
            temporary.write_bytes(_to_glb(document, binary))
        else:
            document["buffers"][0]["uri"] = DATA_URI + base64.b64encode(binary).decode("ascii")
            temporary.write_text(json.dumps(document), encoding="utf-8")


def _document(data: Sequence[np.ndarray]) -> dict[str, Any]:
    """The JSON of one node with one primitive whose attributes lie one after another in one buffer."""
    ends = np.cumsum([array.nbytes for array in data]).tolist()
    views = [
        {"buffer": 0, "byteOffset": end - array.nbytes, "byteLength": array.nbytes, "target": ARRAY_BUFFER}
        for end, array in zip(ends, data, strict=True)
    ]
    accessors: list[dict[str, Any]] = [
        {"bufferView": index, "componentType": FLOAT, "count": len(array), "type": TYPES[array.shape[1]]}
        for index, array in enumerate(data)
    ]
    accessors[0] |= {"min": data[0].min(axis=0).tolist(), "max": data[0].max(axis=0).tolist()}
    primitive = {
        "attributes": {name: index for index, name in enumerate(ATTRIBUTES)},
        "mode": POINTS,
        "extensions": {EXTENSION: {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}},
    }
    return {
        "asset": {"version": "2.0", "generator": "lrm4d"},
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "matrix": Z_UP_TO_Y_UP.mT.flatten().tolist()}],
        "meshes": [{"primitives": [primitive]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": ends[-1]}],
    }


def _to_glb(document: dict[str, Any], binary: bytes) -> bytes:
    """Header and two chunks, each filled to four bytes: the JSON with spaces, the binary with zeros."""
    chunks = b""
    for kind, content, filling in (
        (JSON_CHUNK, json.dumps(document).encode("utf-8"), b" "),
        (BIN_CHUNK, binary, b"\0"),
    ):
        content += filling * (-len(content) % 4)
        chunks += struct.pack("<I4s", len(content), kind) + content
    return struct.pack("<4sII", GLB_MAGIC, 2, 12 + len(chunks)) + chunks


# Reading


def read_gltf(path: str | Path) -> Gaussians3D:
    """All Gaussians of a .glb or .gltf in our world (z up), batch shape [], float32.

    The nodes' matrices are applied. Read are float attributes whose data are in the file. ValueError names the file
    and what is wrong in it.
    """
    content = Path(path).read_bytes()
    try:
        document, binary = _from_glb(content) if content[:4] == GLB_MAGIC else (_parse(content), None)
        buffers = [_buffer(entry, binary) for entry in document.get("buffers", [])]
        seen: set[int] = set()
        parts = [part for node in _roots(document) for part in _walk(document, buffers, node, Z_UP_TO_Y_UP.mT, seen)]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except (LookupError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{path}: not a sound glTF file ({error!r}).") from error
    if not parts:
        raise ValueError(f"{path}: holds no Gaussians: no primitive of its scene has {EXTENSION}.")
    columns = zip(*parts, strict=True)
    gaussians = Gaussians3D(*(torch.cat(column).float() for column in columns))
    if not all(bool(value.isfinite().all()) for value in vars(gaussians).values()):
        raise ValueError(f"{path}: holds numbers that are not finite; expected finite ones. Write the file again.")
    return gaussians


def _from_glb(content: bytes) -> tuple[dict[str, Any], bytes | None]:
    if len(content) < 20:
        raise ValueError(f"{len(content)} bytes, expected at least a header of 20; was it cut off while copying?")
    _, version, length = struct.unpack_from("<4sII", content)
    if version != 2 or length != len(content):
        raise ValueError(
            f"glTF version {version} of {length} bytes, expected version 2 of {len(content)} bytes, which the file "
            "has; was it cut off while copying?"
        )
    chunks: dict[bytes, bytes] = {}
    start = 12
    while start < length:
        size, kind = struct.unpack_from("<I4s", content, start) if start + 8 <= length else (0, b"")
        if not kind or start + 8 + size > length:
            raise ValueError(f"the chunk at byte {start} does not end within the file; was it cut off while copying?")
        chunks.setdefault(kind, content[start + 8 : start + 8 + size])
        start += 8 + size
    if JSON_CHUNK not in chunks:
        raise ValueError("it has no JSON chunk.")
    return _parse(chunks[JSON_CHUNK]), chunks.get(BIN_CHUNK)


def _parse(text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not glTF: starts with {text[:4]!r} and is no JSON ({error}); was it cut off?") from error
    if not isinstance(document, dict) or document.get("asset", {}).get("version") != "2.0":
        raise ValueError("not glTF 2.0: asset.version is not '2.0'.")
    return document


def _buffer(entry: dict[str, Any], binary: bytes | None) -> bytes:
    """A buffer's bytes: the file's own chunk, or base64 in the JSON."""
    uri, content = entry.get("uri"), binary
    if uri is not None:
        header, _, text = uri.partition(",")
        if not header.startswith("data:") or not header.endswith(";base64"):
            raise ValueError(f"its data are in another file, '{uri[:40]}'; expected them inside. Save it as .glb.")
        try:
            content = base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise ValueError(f"a buffer is not base64 ({error}).") from error
    if content is None or len(content) < entry["byteLength"]:
        found = "none" if content is None else len(content)
        raise ValueError(f"a buffer has {found} bytes, expected {entry['byteLength']}; was it cut off while copying?")
    return content


def _roots(document: dict[str, Any]) -> list[int]:
    return document["scenes"][document.get("scene", 0)].get("nodes", [])


def _walk(
    document: dict[str, Any], buffers: list[bytes], index: int, parent: Float[Tensor, "4 4"], seen: set[int]
) -> Iterator[tuple[Tensor, ...]]:
    """Means, covariances, opacities, colors of the primitives with the extension under a node."""
    if index in seen:
        raise ValueError(f"node {index} is in the scene twice; glTF's nodes are a tree.")
    seen.add(index)
    node = document["nodes"][index]
    matrix = parent @ _node_matrix(node)
    primitives = document["meshes"][node["mesh"]]["primitives"] if "mesh" in node else []
    for primitive in primitives:
        if EXTENSION in primitive.get("extensions", {}):
            yield _read_primitive(document, buffers, primitive, matrix)
    for child in node.get("children", []):
        yield from _walk(document, buffers, child, matrix, seen)


def _node_matrix(node: dict[str, Any]) -> Float[Tensor, "4 4"]:
    """A node's own matrix: as given, or translation times rotation times scale."""
    if "matrix" in node:
        return torch.tensor(node["matrix"], dtype=torch.float64).reshape(4, 4).mT
    matrix = torch.eye(4, dtype=torch.float64)
    x, y, z, w = node.get("rotation", (0, 0, 0, 1))
    scale = matrix.new_tensor(node.get("scale", (1, 1, 1)))
    matrix[:3, :3] = quaternion_to_matrix(matrix.new_tensor([w, x, y, z])) * scale
    matrix[:3, 3] = matrix.new_tensor(node.get("translation", (0, 0, 0)))
    return matrix


def _read_primitive(
    document: dict[str, Any], buffers: list[bytes], primitive: dict[str, Any], matrix: Float[Tensor, "4 4"]
) -> tuple[Tensor, ...]:
    """One primitive's means, covariances, opacities and colors, moved by the matrix."""
    kind = primitive["extensions"][EXTENSION]
    if kind.get("kernel") != "ellipse" or kind.get("colorSpace") != "srgb_rec709_display" or kind.get("extensions"):
        raise ValueError(f"Gaussians as {kind}; only kernel ellipse in srgb_rec709_display, uncompressed, is read.")
    found = primitive["attributes"]
    missing = [name for name in ATTRIBUTES if name not in found]
    if missing:
        raise ValueError(f"its Gaussians have no {', '.join(missing)}.")
    if any(name.startswith(f"{EXTENSION}:SH_DEGREE_1") for name in found):
        raise ValueError("its colors change with the direction, which is not read here; save it with degree 0.")
    values = [_accessor(document, buffers, found[name], width) for name, width in ATTRIBUTES.items()]
    means, rotations, scales, opacities, coefficients = values
    if len({len(value) for value in values}) > 1:
        raise ValueError(f"attributes of unequal counts {[len(value) for value in values]}.")
    if bool((scales < 0).any()) or bool(((opacities < 0) | (opacities > 1)).any()):
        raise ValueError("a negative scale (logarithms are of an older draft) or an opacity outside of [0, 1].")
    turn = matrix[:3, :3]
    covariances = compose_covariances(scales, rotations.roll(1, dims=-1))
    return (
        means @ turn.mT + matrix[:3, 3],
        pack_symmetric(turn @ unpack_symmetric(covariances) @ turn.mT),
        opacities[:, 0],
        sh_to_colors(coefficients),
    )


def _accessor(document: dict[str, Any], buffers: list[bytes], index: int, width: int) -> Float[Tensor, "n width"]:
    accessor = document["accessors"][index]
    if accessor["componentType"] != FLOAT or accessor["type"] != TYPES[width] or "bufferView" not in accessor:
        raise ValueError(f"accessor {index} is {accessor}; only plain {TYPES[width]} of float is read.")
    view = document["bufferViews"][accessor["bufferView"]]
    stride = view.get("byteStride", 4 * width)
    start, count = accessor.get("byteOffset", 0), accessor["count"]
    buffer = buffers[view["buffer"]]
    offset, length = view.get("byteOffset", 0), view["byteLength"]
    needed = start + (count - 1) * stride + 4 * width
    if min(start, offset, length) < 0 or count < 1 or stride < 4 * width or "sparse" in accessor:
        raise ValueError(f"accessor {index} is {accessor} of {view}; expected a plain one that is not empty.")
    if needed > length or offset + length > len(buffer):
        raise ValueError(f"accessor {index} ends at byte {offset + needed} of {len(buffer)}; was it cut off?")
    values = np.ndarray((count, width), "<f4", buffer, offset + start, (stride, 4))
    return torch.from_numpy(values.astype(np.float64))
