"""Which stages of a run are done, so that one that was stopped goes on where it was."""

import json
from collections.abc import Iterable
from pathlib import Path

from lrm4d.checkpoint import read_json, write_text


class Stages:
    """The record of a run in its folder, stages.json: what was asked for, and each finished stage with its files.

    A folder belongs to what `settings` say (plain data): ValueError for those of another run, which names what
    differs, and for a folder with files but no record.
    """

    def __init__(self, folder: str | Path, settings: dict):
        self.folder, self.file = Path(folder), Path(folder) / "stages.json"
        self.settings: dict = json.loads(json.dumps(settings))
        self.finished: dict[str, dict] = {}
        if self.file.exists():
            self._read()
        elif self.folder.is_dir() and any(not path.name.startswith(".") for path in self.folder.iterdir()):
            raise ValueError(f"{self.folder}: holds files, but no {self.file.name} of an earlier run; give another.")
        self._write()

    def has(self, stage: str, **inputs) -> bool:
        """Whether a stage is done, from the same inputs (plain data), and all its files are there."""
        record = self.finished.get(stage)
        same = record is not None and record["inputs"] == json.loads(json.dumps(inputs))
        return same and all((self.folder / file).is_file() for file in record["files"])

    def finish(self, stage: str, files: Iterable[str | Path], **inputs) -> None:
        """Write down that a stage is done; files: within the folder."""
        names = sorted(Path(file).relative_to(self.folder).as_posix() for file in files)
        self.finished[stage] = {"inputs": json.loads(json.dumps(inputs)), "files": names}
        self._write()

    def _read(self) -> None:
        content = read_json(self.file)
        other, finished = content.get("settings"), content.get("finished")
        if not isinstance(other, dict) or not isinstance(finished, dict):
            raise ValueError(f"{self.file}: is no record of a run; give another folder, or delete it.")
        differing = sorted(
            key for key in self.settings.keys() | other.keys() if other.get(key) != self.settings.get(key)
        )
        if differing:
            shown = "; ".join(f"{key} {other.get(key)!r}, now {self.settings.get(key)!r}" for key in differing)
            raise ValueError(
                f"{self.file}: this folder is of another run, which had {shown}. Give another folder, or delete it."
            )
        self.finished = finished

    def _write(self) -> None:
        content = {"settings": self.settings, "finished": self.finished}
        write_text(self.file, json.dumps(content, indent=1) + "\n")
