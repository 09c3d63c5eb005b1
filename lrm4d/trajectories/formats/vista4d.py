"""Vista4D's camera npz: cam_c2w [n, 4, 4], camera-to-world in OpenCV axes, and intrinsics [n, 4] = fx, fy, cx, cy.

The pictures' size is not in the file: they are taken to be centred, 2 cx by 2 cy pixels. The world is that of the
video's reconstruction, in its units. Files may hold a second path that begins where the video's first camera was
(cam_c2w_fsff, intrinsics_fsff): FILE#fsff chooses it. No times are in the file.
"""

import zipfile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.checkpoint import atomic_path
from lrm4d.trajectories.formats.reading import read_numbers
from lrm4d.trajectories.recording import Recording, check_poses


def read(path: Path, part: str) -> Recording:
    """The cameras; `part`: "fsff" for the second path."""
    keys = ("cam_c2w", "intrinsics") if not part else (f"cam_c2w_{part}", f"intrinsics_{part}")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in keys if key not in file]
            if missing:
                raise ValueError(f"has no '{missing[0]}', only {', '.join(sorted(file))}")
            poses, intrinsics = (file[key] for key in keys)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zipfile.LargeZipFile, TypeError) as error:
        raise ValueError(
            f"{path}: not a readable camera npz ({error}); expected cam_c2w and intrinsics. Was it cut off?"
        ) from error
    camera_to_world = check_poses(str(path), read_numbers(path, keys[0], poses, -1, 4, 4))
    fx, fy, cx, cy = read_numbers(path, keys[1], intrinsics, len(poses), 4).unbind(-1)
    if float(torch.stack([fx, fy, cx, cy]).min()) <= 0:
        raise ValueError(f"{path}: '{keys[1]}' holds numbers that are not above 0; expected fx, fy, cx, cy in pixels.")
    lenses = torch.stack([fx, fy, torch.zeros_like(fx), torch.zeros_like(fx)], dim=-1) / (2 * cx[:, None])
    return Recording(camera_to_world, lenses)


def write(path: Path, cameras: Cameras, times: Float[Tensor, "camera"], frames_per_second: float) -> None:
    """Write cameras [camera]; the times are lost, and the second path is the same as the first."""
    k = cameras.intrinsics.double()
    centre = torch.tensor([cameras.width / 2, cameras.height / 2])
    if float((k[:, :2, 2] - centre).abs().max()) > 0.01:
        raise ValueError(f"{path}: vista4d's file has no picture size and needs a centred lens; write colmap instead.")
    poses = cameras.camera_to_world.double().numpy()
    intrinsics = torch.stack([k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2]], dim=-1).numpy()
    with atomic_path(path) as temporary:
        np.savez(temporary, cam_c2w=poses, intrinsics=intrinsics, cam_c2w_fsff=poses, intrinsics_fsff=intrinsics)
