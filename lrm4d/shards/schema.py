"""One scene of a shard as files, the schema "lrm4d-scene-1".

A shard is a plain tar in webdataset's layout: the files of one scene follow each other and share their name up to the
first dot, the key. For a scene of V views:

    KEY.000.rgba.webp (or .png)   a picture of each view, 8-bit straight RGB and alpha, lossless; numbers from 000
    KEY.000.geometry.png          what is known of each view's pixels, if "geometry" is in the JSON: 16-bit grey, the
                                  channels of its layers one below the other, in the order of the JSON
    KEY.json                      the rest:

    schema            "lrm4d-scene-1"
    source            where the scene is from, for people
    width, height     of every picture, pixels
    camera_to_world   V rigid 4 x 4 matrices, OpenCV axes (x right, y down, z forward); the object in the unit sphere
    intrinsics        V 3 x 3 matrices, pixels, pixel centres at +0.5
    times             V numbers in [0, 1]
    inputs, targets   optional: the views that may be given to a network and that it may be judged by; else all
    geometry          optional: {layer: {channels, step, zero, boolean}}; value = (code - zero) * step. Layers depths
                      (camera z at the pixel's centre, 0 for none) and hits (boolean: whether depths is known) are
                      required, others may follow: one channel is another depth, flows are world units a clip
    crc32             optional: {file name after the key: its checksum}

Nothing here is a pickle, and nothing is decoded but JSON, PNG and WebP.
"""

import io
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.views import Views

SCHEMA = "lrm4d-scene-1"
STEP = 2.0**-12
"""Of a geometry layer's codes (world units), unless its values need more room: a fraction of a pixel's footprint."""
ROTATION_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Layer:
    """How a layer of the geometry is coded in 16 bits: value = (code - zero) * step."""

    channels: int
    step: float
    zero: int
    boolean: bool = False

    @staticmethod
    def of(values: Tensor) -> "Layer":
        """The coding that fits values [view, channel, height, width]; 0 is always exact."""
        channels = values.shape[-3]
        if values.dtype == torch.bool:
            return Layer(channels, 1.0, 0, True)
        low, high = (float(v) for v in values.aminmax()) if values.numel() else (0.0, 0.0)
        if not np.isfinite([low, high]).all():
            raise ValueError(f"geometry holds values from {low} to {high}; expected finite numbers.")
        zero, room = (0, 65535) if low >= 0 else (32768, 32767)
        return Layer(channels, max(STEP, max(high, -low) / room), zero)

    def encode(self, values: Tensor) -> np.ndarray:
        """Codes of values."""
        return ((values.double() / self.step).round() + self.zero).cpu().numpy().astype(np.uint16)

    def decode(self, codes: np.ndarray) -> Tensor:
        """Values of codes: float32 or bool."""
        if self.boolean:
            return torch.from_numpy(codes > 0)
        return torch.from_numpy((codes.astype(np.float32) - self.zero) * np.float32(self.step))


@dataclass(frozen=True)
class SceneHeader:
    """What a scene's JSON says. cameras and times: batch shape [view]; inputs and targets: indices of views."""

    cameras: Cameras
    times: Float[Tensor, "view"]
    inputs: tuple[int, ...]
    targets: tuple[int, ...]
    layers: dict[str, Layer]
    checksums: dict[str, int]
    source: str

    @staticmethod
    def parse(data: bytes) -> "SceneHeader":
        """Read and check the JSON; ValueError says which entry is wrong."""
        try:
            content = json.loads(data)
        except ValueError as error:
            raise ValueError(f"its JSON is broken ({error})") from error
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            found = content.get("schema") if isinstance(content, dict) else type(content).__name__
            raise ValueError(f"its JSON has the schema {found!r}; expected {SCHEMA!r}")
        times = _numbers(content, "times", ())
        views = len(times)
        if not views or bool((times < 0).any() or (times > 1).any()):
            raise ValueError(f"times are {times.tolist()[:8]}; expected one number in [0, 1] a view")
        width, height = (_size(content, name) for name in ("width", "height"))
        matrices, intrinsics = _numbers(content, "camera_to_world", (4, 4)), _numbers(content, "intrinsics", (3, 3))
        if not len(matrices) == len(intrinsics) == views:
            raise ValueError(
                f"it has {views} times, {len(matrices)} camera_to_world and {len(intrinsics)} intrinsics; "
                "expected one of each a view"
            )
        _check_cameras(matrices, intrinsics)
        return SceneHeader(
            Cameras(matrices, intrinsics, width, height),
            times,
            _indices(content, "inputs", views),
            _indices(content, "targets", views),
            _layers(content.get("geometry", {})),
            _checksums(content.get("crc32", {})),
            str(content.get("source", "")),
        )


@dataclass(frozen=True)
class PackedScene:
    """A scene as it lies in a shard: its header, and its files by their name after the key."""

    header: SceneHeader
    files: Mapping[str, bytes]

    @staticmethod
    def parse(files: Mapping[str, bytes]) -> "PackedScene":
        """Read the header and compare the checksums; pictures are decoded when asked for."""
        if "json" not in files:
            raise ValueError(f"it has no .json among its {len(files)} files")
        header = SceneHeader.parse(files["json"])
        for name, expected in header.checksums.items():
            if name not in files:
                raise ValueError(f"it has no {name}")
            if zlib.crc32(files[name]) != expected:
                raise ValueError(f"{name} is corrupt: its checksum is {zlib.crc32(files[name])} and not {expected}")
        return PackedScene(header, files)

    def decode(self, chosen: Sequence[int]) -> tuple[Views, dict[str, Tensor]]:
        """Views [view], and the layers of the geometry [view, channel, height, width], of the chosen views."""
        header = self.header
        rgba = torch.stack([self._picture(view) for view in chosen]).permute(0, 3, 1, 2).float() / 255
        index = list(chosen)
        views = Views(rgba[:, :3], rgba[:, 3:], header.cameras[index], header.times[index])
        return views, self._geometry(chosen)

    def _picture(self, view: int) -> Tensor:
        names = [f"{view:03}.rgba.{kind}" for kind in ("webp", "png")]
        name = next((name for name in names if name in self.files), None)
        if name is None:
            raise ValueError(f"view {view} has no picture; expected {' or '.join(names)}")
        size = self.header.cameras.width, self.header.cameras.height
        return torch.from_numpy(_decode(self.files[name], name, size, ("RGBA", "RGB", "L", "LA", "P")))

    def _geometry(self, chosen: Sequence[int]) -> dict[str, Tensor]:
        layers, cameras = self.header.layers, self.header.cameras
        if not layers:
            return {}
        channels = [layer.channels for layer in layers.values()]
        size = cameras.width, cameras.height * sum(channels)
        names = [f"{view:03}.geometry.png" for view in chosen]
        missing = [name for name in names if name not in self.files]
        if missing:
            raise ValueError(f"it has no {missing[0]}")
        codes = np.stack([_decode(self.files[name], name, size, ("I;16", "I")) for name in names])
        codes = codes.reshape(len(names), sum(channels), cameras.height, cameras.width)
        parts = np.split(codes, np.cumsum(channels)[:-1], axis=1)
        return {name: layer.decode(part) for (name, layer), part in zip(layers.items(), parts, strict=True)}


def pack_scene(
    parts: Iterable[Views],
    geometry: Mapping[str, Tensor] | None = None,
    inputs: Sequence[int] | None = None,
    targets: Sequence[int] | None = None,
    source: str = "",
) -> dict[str, bytes]:
    """The files of a scene by their name after the key.

    parts: the views in order, in as many Views [view] as fits the memory. geometry: layers [view, channel, height,
    width] of all views together, with depths and hits among them. inputs, targets: indices of views; None for all.
    """
    geometry = geometry or {}
    layers = {name: Layer.of(values) for name, values in geometry.items()}
    files: dict[str, bytes] = {}
    cameras, times = [], []
    for part in parts:
        pixels = (torch.cat([part.images, part.alphas], dim=1).clamp(0, 1) * 255).round().byte()
        for picture in pixels.permute(0, 2, 3, 1).cpu().numpy():
            files[f"{len(files):03}.rgba.webp"] = _encode(picture, "WEBP", lossless=True, exact=True)
        cameras.append(part.cameras)
        times.append(part.times)
    codes = [layers[name].encode(values) for name, values in geometry.items()]
    for view in range(len(files) if codes else 0):
        stack = np.concatenate([layer[view] for layer in codes]).reshape(-1, codes[0].shape[-1])
        files[f"{view:03}.geometry.png"] = _encode(stack, "PNG", compress_level=4)
    content = {
        "schema": SCHEMA,
        "source": source,
        "width": cameras[0].width,
        "height": cameras[0].height,
        "camera_to_world": _plain(torch.cat([camera.camera_to_world for camera in cameras])),
        "intrinsics": _plain(torch.cat([camera.intrinsics for camera in cameras])),
        "times": _plain(torch.cat(times)),
        **({"inputs": list(inputs)} if inputs is not None else {}),
        **({"targets": list(targets)} if targets is not None else {}),
        **({"geometry": {name: asdict(layer) for name, layer in layers.items()}} if layers else {}),
        "crc32": {name: zlib.crc32(data) for name, data in files.items()},
    }
    data = json.dumps(content, separators=(",", ":")).encode()
    SceneHeader.parse(data)  # what is written can be read
    return files | {"json": data}


def _encode(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format=kind, **options)
    return buffer.getvalue()


def _decode(data: bytes, name: str, size: tuple[int, int], modes: tuple[str, ...]) -> np.ndarray:
    """RGBA [height, width, 4] uint8, or 16-bit codes [height, width], of a picture that must have this size."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "WEBP")) as picture:
            found, mode = picture.size, picture.mode
            if found == size and mode in modes:
                return np.array(picture).astype(np.uint16) if mode[0] == "I" else np.array(picture.convert("RGBA"))
    # Pillow raises a dozen types for broken files (OSError, SyntaxError, struct.error, ...); all mean the same.
    except Exception as error:
        raise ValueError(f"{name} cannot be decoded ({error})") from error
    raise ValueError(
        f"{name} is {found[0]} x {found[1]} pixels of the kind {mode}; expected {size[0]} x {size[1]}, {modes[0]}"
    )


def _plain(values: Tensor) -> Any:
    """Nested lists of the shortest decimals that give the same float32 again."""
    if values.dim():
        return [_plain(value) for value in values]
    return float(f"{values.item():.9g}")


def _numbers(content: dict[str, Any], name: str, shape: tuple[int, ...]) -> Tensor:
    """The entry as [view, *shape] finite numbers."""
    try:
        values = torch.tensor(content.get(name), dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} is {str(content.get(name))[:60]}; expected a list of numbers ({error})") from error
    if values.dim() == 0 or values.shape[1:] != shape:
        expected = " x ".join(["views", *map(str, shape)])
        raise ValueError(f"{name} has the shape {tuple(values.shape)}; expected {expected}")
    if not bool(values.isfinite().all()):
        view = int((~values.isfinite()).reshape(len(values), -1).any(1).nonzero()[0])
        raise ValueError(f"{name} of view {view} holds a number that is not finite")
    return values


def _check_cameras(matrices: Tensor, intrinsics: Tensor) -> None:
    rotations = matrices[:, :3, :3]
    error = (rotations.mT @ rotations - torch.eye(3)).abs().amax((1, 2))
    last = matrices[:, 3] == matrices.new_tensor([0, 0, 0, 1])
    bad = (error > ROTATION_TOLERANCE) | (torch.linalg.det(rotations) < 0) | ~last.all(1)
    if bool(bad.any()):
        view = int(bad.nonzero()[0])
        raise ValueError(
            f"camera_to_world of view {view} is {matrices[view].tolist()}; expected a rotation without scale or "
            "mirroring, a translation, and the last row 0 0 0 1"
        )
    last = intrinsics[:, 2] == intrinsics.new_tensor([0, 0, 1])
    bad = (intrinsics[:, 0, 0] <= 0) | (intrinsics[:, 1, 1] <= 0) | ~last.all(1)
    if bool(bad.any()):
        view = int(bad.nonzero()[0])
        raise ValueError(
            f"intrinsics of view {view} are {intrinsics[view].tolist()}; expected positive focal lengths in pixels "
            "and the last row 0 0 1"
        )


def _size(content: dict[str, Any], name: str) -> int:
    value = content.get(name)
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} is {value!r}; expected pixels, a whole number above 0")
    return value


def _indices(content: dict[str, Any], name: str, views: int) -> tuple[int, ...]:
    values = content.get(name, list(range(views)))
    fine = isinstance(values, list) and all(type(value) is int and 0 <= value < views for value in values)
    if not fine or len(set(values)) != len(values):
        raise ValueError(f"{name} are {str(values)[:60]}; expected different indices of views, 0 to {views - 1}")
    return tuple(values)


def _layers(content: Any) -> dict[str, Layer]:
    try:
        layers = {
            name: Layer(int(layer["channels"]), float(layer["step"]), int(layer["zero"]), bool(layer["boolean"]))
            for name, layer in content.items()
        }
        known = all(layer.channels > 0 and layer.step > 0 and 0 <= layer.zero < 65536 for layer in layers.values())
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"geometry is {str(content)[:60]}; expected {{layer: {{channels, step, zero, boolean}}}}"
        ) from error
    if not known or (layers and not {"depths", "hits"} <= set(layers)):
        raise ValueError(
            f"geometry is {str(content)[:90]}; expected depths and hits, each with channels, step and zero"
        )
    return layers


def _checksums(content: Any) -> dict[str, int]:
    if not isinstance(content, dict) or not all(type(value) is int for value in content.values()):
        raise ValueError(f"crc32 is {str(content)[:60]}; expected {{file name: checksum}}")
    return content
