"""Files of tensors: safetensors with a JSON header, written atomically, never unpickled."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

UMASK = os.umask(0)
"""The process's file mode mask; it can be read only by setting it, which threads must not do at the same time."""
os.umask(UMASK)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~UMASK)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_safetensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and string metadata atomically."""
    with atomic_path(path) as temporary:
        save_file({name: value.contiguous().cpu() for name, value in tensors.items()}, temporary, metadata)


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the metadata of a file; ValueError names the file when it is missing or broken."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file.")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{path}: not a readable safetensors file ({error}); was it cut off while copying?"
        ) from error


def read_json(path: str | Path) -> dict:
    """A JSON file; ValueError names the file when it is missing or broken."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON ({error}).") from error


def find_network(name: str, shipped: Path, kind: str) -> Path:
    """The folder of a network's config.json and weights: in `shipped` by name, a folder, or fetched by a hub id.

    ValueError says what there is; kind: what to call it there.
    """
    for folder in (shipped / name, Path(name)):
        if (folder / "config.json").is_file():
            return folder
    if name.count("/") == 1 and not Path(name).exists():
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=["config.json", "model*.safetensors*"]))
    there = sorted(path.parent.name for path in shipped.glob("*/config.json"))
    raise ValueError(
        f"no {kind} called {name!r}: give one of {', '.join(there) or 'none shipped'}, "
        "a folder with config.json and model.safetensors (or shards), or a hub id owner/name."
    )
