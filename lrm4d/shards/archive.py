"""Shard files: writing a tar whole or not at all, an index beside it, and reading one scene out of it."""

import glob
import io
import json
import logging
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

from webdataset.shardlists import expand_urls
from webdataset.tariterators import base_plus_ext, group_by_keys, tar_file_expander
from webdataset.writer import TarWriter

from lrm4d.checkpoint import atomic_path, read_json, write_text
from lrm4d.shards.schema import PackedScene, SceneHeader

BLOCK = 512
"""Bytes that everything in a tar is padded to."""
LOG = logging.getLogger("lrm4d.shards")


@dataclass(frozen=True)
class Entry:
    """Where a scene lies in its shard (bytes), its pictures' size, how many views may be inputs, targets, or both."""

    key: str
    offset: int
    size: int
    width: int
    height: int
    inputs: int
    targets: int
    both: int


def write_shard(path: Path, scenes: Iterable[tuple[str, Mapping[str, bytes]]]) -> list[Entry]:
    """Write scenes (key and files of pack_scene) as a shard and its index; the same scenes give the same bytes."""
    with atomic_path(path) as temporary:
        with temporary.open("wb") as file, TarWriter(file, user="", group="", mtime=0, encoder=False) as writer:
            for key, files in scenes:
                if "." in key or "/" in key:
                    raise ValueError(f"{path}: the key {key!r} has a dot or a slash; webdataset splits names there.")
                writer.write({"__key__": key, **files})
        entries = index_shard(temporary)
    write_index(path, entries)
    return entries


def index_path(path: Path) -> Path:
    """The index beside a shard."""
    return path.with_suffix(".index.json")


def write_index(path: Path, entries: list[Entry]) -> None:
    """Write the index of a shard, so that opening it does not have to read it through."""
    content = {"bytes": path.stat().st_size, "scenes": [asdict(entry) for entry in entries]}
    write_text(index_path(path), json.dumps(content) + "\n")


def read_index(path: Path) -> list[Entry]:
    """The entries of a shard, from the index beside it or, without one, from the shard itself."""
    if not index_path(path).exists():
        return index_shard(path)
    content = read_json(index_path(path))
    try:
        entries, expected = [Entry(**entry) for entry in content["scenes"]], content["bytes"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{index_path(path)}: not an index ({error}); delete it and it is made anew.") from error
    if path.stat().st_size != expected:
        # What the index lists is missed when it cannot be read: scenes at a cut-off end are not forgotten.
        LOG.warning(
            "%s has %d bytes and its index says %d: it was cut off, or changed; copy it again, or delete the index.",
            path,
            path.stat().st_size,
            expected,
        )
    return entries


def index_shard(path: Path) -> list[Entry]:
    """The entries of a shard, read from its headers and its scenes' JSON; ValueError names the file and the key."""
    entries: list[Entry] = []
    try:
        with tarfile.open(path, "r:") as tar:
            for key, members in _group(tar):
                if "json" not in members:
                    raise ValueError(f"{path}: {key}: it has no .json; was the shard cut off while copying?")
                file = tar.extractfile(members["json"])
                entries.append(_entry(path, key, list(members.values()), file.read() if file else b""))
    except (tarfile.TarError, OSError) as error:
        last = f" after the scene {entries[-1].key}" if entries else ""
        raise ValueError(f"{path}: not a readable tar{last} ({error}); was it cut off while copying?") from error
    with path.open("rb") as file:
        file.seek(-2 * BLOCK, os.SEEK_END)
        if any(file.read()):
            raise ValueError(f"{path}: not a whole tar, its end is missing; was it cut off while copying?")
    keys = [entry.key for entry in entries]
    if not keys or len(set(keys)) != len(keys):
        twice = next((key for key in keys if keys.count(key) > 1), None)
        raise ValueError(f"{path}: " + (f"the files of {twice} do not follow each other." if twice else "no scenes."))
    return entries


def _group(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Files that follow each other with one key, by their name after it: webdataset's rule."""
    named = ((*base_plus_ext(member.name), member) for member in tar if member.isreg())
    for key, files in groupby((file for file in named if file[0]), key=lambda file: file[0]):
        yield key, {suffix.lower(): member for _, suffix, member in files}


def _entry(path: Path, key: str, members: list[tarfile.TarInfo], data: bytes) -> Entry:
    try:
        header = SceneHeader.parse(data)
    except ValueError as error:
        raise ValueError(f"{path}: {key}: {error}.") from error
    start, end = members[0].offset, members[-1].offset_data + -(-members[-1].size // BLOCK) * BLOCK
    both = len(set(header.inputs) & set(header.targets))
    cameras = header.cameras
    return Entry(key, start, end - start, cameras.width, cameras.height, len(header.inputs), len(header.targets), both)


def read_files(path: Path, entry: Entry) -> PackedScene:
    """One scene of a shard, read in one piece; ValueError names the file and the key."""
    with path.open("rb") as file:
        block = os.pread(file.fileno(), entry.size, entry.offset)
    try:
        if len(block) != entry.size:
            raise ValueError(f"the shard ends {entry.size - len(block)} bytes before the end of it")
        source = {"url": str(path), "stream": io.BytesIO(block)}
        scenes = list(group_by_keys(tar_file_expander([source])))
        keys = [scene["__key__"] for scene in scenes]
        if keys != [entry.key]:
            raise ValueError(f"the index says that it is here, but here is {', '.join(keys) or 'nothing'}")
        return PackedScene.parse({name: data for name, data in scenes[0].items() if name[0] != "_"})
    # Broken bytes make tarfile and webdataset raise a dozen types, some with streams among their arguments.
    except Exception as error:
        raise ValueError(f"{path}: {entry.key}: {(*error.args, error)[0]}.") from error


def find_shards(pattern: str | Path) -> list[Path]:
    """The shards of a folder (all of them must be there), or of a pattern such as "data/shard-{000000..000099}.tar".

    Braces are expanded, and stars and question marks matched; whatever stands for no file is an error.
    """
    folder = Path(pattern)
    if folder.is_dir():
        found = [path for path in sorted(folder.glob("*.tar")) if path.name[0] != "."]  # those are half written
        _check_whole(folder, found)
    else:
        names = expand_urls(str(pattern))
        matches = [sorted(glob.glob(name)) for name in names]
        missing = [name for name, match in zip(names, matches, strict=True) if not match]
        if missing:
            raise ValueError(
                f"{pattern}: there is no {missing[0]}"
                + (f" and {len(missing) - 1} others" if len(missing) > 1 else "")
                + "; name a folder of .tar files, or a pattern whose every part stands for at least one."
            )
        found = [Path(name) for match in matches for name in match]
    if not found:
        raise ValueError(f"{pattern}: no .tar files; write some with python -m data_tools.write_shards.")
    return found


def _check_whole(folder: Path, found: list[Path]) -> None:
    """Compare with the recipe that the writer left: a folder whose writing was broken off is not trained on."""
    recipe = folder / "recipe.json"
    if not recipe.exists():
        return
    expected = read_json(recipe).get("shards")
    if expected != len(found):
        raise ValueError(
            f"{folder}: {len(found)} of {expected} shards are there; write the others with the line that began it, "
            "or name those to use with a pattern."
        )
