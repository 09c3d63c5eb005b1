"""Which scenes and protocols to score, and the views of one of them."""

from collections.abc import Sequence
from pathlib import Path

from lrm4d.scenes import PAPER_PROTOCOLS, Scene
from lrm4d.scenes.pictures import cut_out_of_white
from lrm4d.views import Views


def find_scenes(folder: str | Path, limit: int | None = None) -> list[Path]:
    """The scene folders in a folder (or the folder itself, if it is one), sorted by name; at most `limit`."""
    folder = Path(folder)
    candidates = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())] if folder.is_dir() else []
    scenes = [path for path in candidates if any(path.glob("transforms*.json"))]
    if not scenes:
        raise ValueError(f"{folder}: no scene here; expected a folder with transforms.json, or one of such folders.")
    return scenes[:1] if scenes[0] == folder else scenes[:limit]


def choose_protocols(text: str, scene: Scene) -> list[str]:
    """The scene's protocols named by "all" or by "name,name"; an unknown name is an error that lists those there are.

    "all" puts the paper's four first, in its order.
    """
    if text != "all":
        names = [name.strip() for name in text.split(",") if name.strip()]
        for name in names:
            scene.protocol(name)
        return names
    first = [name for name in PAPER_PROTOCOLS if name in scene.protocols]
    names = first + [name for name in scene.protocols if name not in first]
    if not names:
        raise ValueError(
            f"{scene.folder}: no protocols: it has neither protocols.json nor the views that 4D-LRM's set-ups need. "
            'Write protocols.json: {"NAME": {"inputs": [file_path, ...], "targets": [...]}}.'
        )
    return names


def load_views(scene: Scene, file_paths: Sequence[str], size: int | None = None) -> Views:
    """Views of the scene; size resizes them (by pixel areas) until the longer side has that many pixels.

    Pictures of which none has any transparency are taken to be on white, as the command `lrm4d reconstruct` does.
    """
    views = cut_out_of_white(scene.views(file_paths))
    return views if size is None else views.resize_longer_side(size)
