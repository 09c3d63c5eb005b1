"""ReCamMaster's camera_extrinsics.json: {"frame0": {"cam01": "[r r r 0] [r r r 0] [r r r 0] [x y z 1] ", ...}, ...}.

Each text is a 4x4 camera-to-world matrix for row vectors (its rows are the camera's forward, right and up and its
place) in Unreal's world: x forward, y right, z up, left-handed, centimetres. It becomes our right-handed world, z up,
metres, by negating y: x stays x, z stays z. No lens and no times are in the file. FILE#cam03 chooses the camera.
"""

import json
import re
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.checkpoint import read_json, write_text
from lrm4d.trajectories.formats.reading import get, read_numbers, to_rigid
from lrm4d.trajectories.recording import Recording, check_poses

CENTIMETRES = 100.0


def read(path: Path, part: str) -> Recording:
    """One camera of the file over its frames, in their order; `part`: its name, where there are several."""
    content = read_json(path)
    frames = sorted((key for key in content if re.fullmatch(r"frame\d+", key)), key=lambda key: int(key[5:]))
    names = sorted(content[frames[0]]) if isinstance(content[frames[0]], dict) else []
    name = part or (names[0] if len(names) == 1 else "")
    if name not in names:
        got = f"no camera '{part}'" if part else f"{len(names)} cameras"
        raise ValueError(f"{path}: {got}; choose one of {', '.join(names)}: {path.name}#{(names or ['cam01'])[0]}.")
    matrices = torch.stack([_parse(path, f"{name} of {key}", get(path, key, content[key], name)) for key in frames])
    forward, right, up, place = (matrices[:, row, :3] for row in range(4))
    columns = torch.stack([right, -up, forward, place / CENTIMETRES], dim=-1)
    return Recording(check_poses(str(path), to_rigid(columns * columns.new_tensor([1, -1, 1])[:, None])))


def _parse(path: Path, where: str, text: object) -> Float[Tensor, "4 4"]:
    rows = [row.split() for row in re.findall(r"\[([^\[\]]*)\]", str(text))]
    try:
        return read_numbers(path, where, [[float(value) for value in row] for row in rows], 4, 4)
    except ValueError as error:
        raise ValueError(f"{path}: {where} is '{str(text)[:60]}'; expected four rows of four numbers.") from error


def write(path: Path, cameras: Cameras, times: Float[Tensor, "camera"], frames_per_second: float) -> None:
    """Write cameras [camera] as cam01; lens and times are lost."""
    columns = cameras.camera_to_world[:, :3].double() * torch.tensor([1, -1, 1])[:, None]
    right, down, forward, place = columns.unbind(-1)
    rows = torch.stack([forward, right, -down, place * CENTIMETRES], dim=1).tolist()
    text = lambda matrix: "".join(  # noqa: E731
        f"[{' '.join(f'{value:.9g}' for value in (*row, last))}] "
        for row, last in zip(matrix, (0, 0, 0, 1), strict=True)
    )
    content = {f"frame{index}": {"cam01": text(matrix)} for index, matrix in enumerate(rows)}
    write_text(path, json.dumps(content, indent=1) + "\n")
