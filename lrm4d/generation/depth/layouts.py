"""Layouts that other programs write depth and cameras in.

- **lrm4d** (.npz): depths [time, height, width], valid (bool), camera_to_world [time, 4, 4], intrinsics [time, 3, 3].
- **MegaSaM** (.npz, `*_sgd_cvd_hr.npz`): images, depths [time, height, width], intrinsic [3, 3], cam_c2w [time, 4, 4].
- **ViPE** (folder): depth/NAME.zip of 00000.exr ... (half floats, channel Z), pose/NAME.npz and intrinsics/NAME.npz,
  each with inds [frame] and data: camera to world [frame, 4, 4]; (fx, fy, cx, cy) [frame, 4].
- **GEN3C** (folder): depth.npz (depth), mask.npz (mask), camera.npz (w2c [time, 4, 4], intrinsics [time, 3, 3]).
- **Depth alone**: .npy or .npz with depth or depths, [time, height, width] or [height, width], or a .exr, or a folder
  of .npy or .exr in the order of their names.

All have OpenCV axes and depth as camera z. What is not finite or not above 0 is not valid. Nothing is unpickled.
"""

import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DEPTH_KEYS = ("depths", "depth")


@dataclass(frozen=True)
class Given:
    """What a file told; what it did not is None.

    depths: [time, height, width]. valid: the same, bool. camera_to_world: [time, 4, 4]. intrinsics: [time, 3, 3],
    pixels of the depths.
    """

    depths: np.ndarray
    valid: np.ndarray | None = None
    camera_to_world: np.ndarray | None = None
    intrinsics: np.ndarray | None = None


def read_given(path: Path) -> Given:
    """Read any of the layouts above; ValueError names the file and what was expected."""
    readers: dict[str, Callable[[Path], Given]] = {
        ".npz": _read_npz_layout,
        ".npy": lambda file: Given(as_frames(file, read_npy(file))),
        ".exr": lambda file: Given(as_frames(file, read_exr(file))),
    }
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file or folder.")
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path}: expected .npz, .npy or .exr, or a folder of ViPE's, GEN3C's or of such files.")
    return readers[path.suffix.lower()](path)


def _read_folder(path: Path) -> Given:
    if (path / "depth").is_dir() and (path / "pose").is_dir():
        return read_vipe(path)
    if (path / "depth.npz").is_file() and (path / "camera.npz").is_file():
        return read_gen3c(path)
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in (".npy", ".exr"))
    if not files:
        raise ValueError(
            f"{path}: holds no depth; expected depth/, pose/ and intrinsics/ (ViPE), depth.npz and camera.npz "
            "(GEN3C), or .npy or .exr files."
        )
    frames = [as_frames(file, read_npy(file) if file.suffix.lower() == ".npy" else read_exr(file)) for file in files]
    for file, frame in zip(files, frames, strict=True):
        if frame.shape != frames[0].shape or len(frame) != 1:
            raise ValueError(
                f"{file}: depths of shape {frame.shape}, those of {files[0].name} {frames[0].shape}; expected one "
                "frame a file, all of one size."
            )
    return Given(np.concatenate(frames))


def _read_npz_layout(path: Path) -> Given:
    arrays = read_npz(path)
    key = next((key for key in DEPTH_KEYS if key in arrays), None)
    if key is None:
        raise ValueError(f"{path}: holds {sorted(arrays)}; expected 'depths' or 'depth'.")
    depths = as_frames(path, arrays[key])
    poses = arrays.get("camera_to_world", arrays.get("cam_c2w"))
    lens = arrays.get("intrinsics", arrays.get("intrinsic"))
    return Given(depths, arrays.get("valid"), poses, lens)


def read_gen3c(path: Path) -> Given:
    """GEN3C's folder; its poses are world to camera."""
    depths = as_frames(path / "depth.npz", take(path / "depth.npz", "depth"))
    mask = take(path / "mask.npz", "mask") > 0.5 if (path / "mask.npz").is_file() else None
    poses = np.linalg.inv(take(path / "camera.npz", "w2c").astype(np.float64))
    return Given(depths, mask, poses, take(path / "camera.npz", "intrinsics"))


def read_vipe(path: Path) -> Given:
    """ViPE's folder of one video."""
    archives = sorted((path / "depth").glob("*.zip"))
    if len(archives) != 1:
        raise ValueError(f"{path / 'depth'}: {len(archives)} zip files; expected one: give a folder of one video.")
    name = archives[0].stem
    frames = read_exr_archive(archives[0])
    poses, lenses = (_by_frame(path / part / f"{name}.npz", frames) for part in ("pose", "intrinsics"))
    kinds = path / "intrinsics" / f"{name}_camera.txt"
    if kinds.is_file() and any(line.split(":")[-1].strip() != "PINHOLE" for line in kinds.read_text().splitlines()):
        raise ValueError(f"{kinds}: holds cameras that are no pinholes; undistort the video first.")
    intrinsics = np.zeros((len(frames), 3, 3))
    intrinsics[:, 0, 0], intrinsics[:, 1, 1], intrinsics[:, 0, 2], intrinsics[:, 1, 2] = lenses[:, :4].T
    intrinsics[:, 2, 2] = 1
    return Given(np.concatenate(list(frames.values())), None, poses, intrinsics)


def _by_frame(path: Path, frames: dict[int, np.ndarray]) -> np.ndarray:
    """Rows of `data`, one for each frame, by the frames' numbers in `inds`."""
    rows = dict(zip(take(path, "inds").tolist(), take(path, "data"), strict=True))
    missing = sorted(set(frames) - set(rows))
    if missing:
        raise ValueError(f"{path}: tells nothing of frame {missing[0]}, whose depth is there; expected every frame.")
    return np.stack([rows[frame] for frame in frames])


def read_exr_archive(path: Path) -> dict[int, np.ndarray]:
    """Depths [1, height, width] by frame number, of a zip file of NUMBER.exr."""
    frames: dict[int, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            for name in sorted(archive.namelist()):
                extracted = Path(folder) / "frame.exr"
                extracted.write_bytes(archive.read(name))
                frames[int(Path(name).stem)] = as_frames(path, read_exr(extracted, f"{path}/{name}"))
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: not a readable zip file ({error}); was it cut off while copying?") from error
    if not frames:
        raise ValueError(f"{path}: is empty; expected 00000.exr and so on.")
    return frames


def read_exr(path: Path, called: str | None = None) -> np.ndarray:
    """Depth [height, width] of an EXR file: the channel Z, or Y, V, R, or its only one. called: its name in errors."""
    called = called or str(path)
    try:
        import OpenEXR
    except ImportError as error:
        raise ValueError(f"{called}: reading EXR needs a package: pip install OpenEXR; or save as .npz.") from error
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {name: np.array(channel.pixels) for name, channel in file.channels().items()}
    # The package raises RuntimeError and others, all for a broken file.
    except Exception as error:
        raise ValueError(f"{called}: not a readable EXR file ({error}); was it cut off while copying?") from error
    name = next((name for name in ("Z", "Y", "V", "R") if name in channels), None)
    if name is None and len(channels) != 1:
        raise ValueError(f"{called}: has the channels {sorted(channels)}; expected Z.")
    return channels[name] if name else next(iter(channels.values()))


def read_npy(path: Path) -> np.ndarray:
    """An array that is not pickled."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a readable .npy file ({error}); was it cut off while copying?") from error


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays but pictures, none of them pickled."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files if key != "images"}
    # numpy's zip reading raises a handful of types for broken files; all mean the same.
    except Exception as error:
        raise ValueError(f"{path}: not a readable .npz file ({error}); was it cut off while copying?") from error


def take(path: Path, key: str) -> np.ndarray:
    """One array of an .npz file."""
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file.")
    arrays = read_npz(path)
    if key not in arrays:
        raise ValueError(f"{path}: holds {sorted(arrays)}; expected '{key}'.")
    return arrays[key]


def as_frames(path: Path, depths: np.ndarray) -> np.ndarray:
    """Depths as [time, height, width] floats: of one frame, and with a channel of one, too."""
    shape = depths.shape
    if depths.ndim == 4 and 1 in (shape[1], shape[3]):
        depths = depths[:, 0] if shape[1] == 1 else depths[..., 0]
    if depths.ndim == 2:
        depths = depths[None]
    if depths.ndim != 3 or not depths.size or depths.dtype.kind not in "fiu":
        raise ValueError(f"{path}: depths of shape {shape} and type {depths.dtype}; expected [time, height, width].")
    return depths.astype(np.float32)
