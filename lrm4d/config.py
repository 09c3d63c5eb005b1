"""Configurations: OmegaConf over dataclasses, so that an unknown key or a wrong type is an error that names it."""

from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

T = TypeVar("T")


def make_config(schema: type[T], *sources: dict[str, Any] | str | Path | list[str]) -> T:
    """A dataclass filled from YAML files (paths), dictionaries and lists of "key=value", the later ones winning.

    Raises ValueError that names the file and the key, and lists the keys there are.
    """
    config = OmegaConf.structured(schema)
    for source in sources:
        try:
            config = OmegaConf.merge(config, _read(source))
        except OmegaConfBaseException as error:
            known = ", ".join(OmegaConf.structured(schema))
            message = str(error).splitlines()[0]
            raise ValueError(f"{source}: {message} ({schema.__name__} has: {known}).") from error
    return OmegaConf.to_object(config)


def _read(source: dict[str, Any] | str | Path | list[str]) -> Any:
    if isinstance(source, dict):
        return OmegaConf.create(source)
    if isinstance(source, list):
        return OmegaConf.from_dotlist(source)
    if not Path(source).is_file():
        raise ValueError(f"{source}: no such configuration file.")
    try:
        return OmegaConf.load(source)
    except YAMLError as error:
        raise ValueError(f"{source}: not valid YAML ({str(error).splitlines()[0]}).") from error
