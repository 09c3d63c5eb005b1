"""What the entries have in common: CONFIG -o RUN [key=value ...]."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from lrm4d.checkpoint import write_text
from lrm4d.config import make_config
from train.config import RunConfig
from train.trainer import Task, train

Config = TypeVar("Config", bound=RunConfig)


def run_command(description: str, schema: type[Config], make_task: Callable[[Config], Task]) -> None:
    """Read the command line, write the run's configuration to RUN/train.json, and train."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a YAML file of train/configs")
    parser.add_argument("-o", "--output", required=True, type=Path, help="the run's folder")
    parser.add_argument("changes", nargs="*", help="key=value, for example learning_rate=0.001")
    arguments = parser.parse_intermixed_args()
    config = make_config(schema, arguments.config, arguments.changes)
    task = make_task(config)
    write_text(arguments.output / "train.json", json.dumps(asdict(config), indent=2) + "\n")
    train(task, arguments.output)
