"""Train the reconstruction network: python -m train.reconstruction CONFIG -o RUN [key=value ...].

    python -m train.reconstruction train/configs/debug.yaml -o runs/debug
    python -m train.reconstruction train/configs/one_gpu.yaml -o runs/small steps=40000
    torchrun --nproc_per_node 2 -m train.reconstruction train/configs/nano.yaml -o runs/nano

The same line again resumes the run from its last checkpoint.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from lrm4d.checkpoint import write_text
from lrm4d.config import make_config
from train.config import TrainConfig
from train.trainer import train


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a YAML file of train/configs")
    parser.add_argument("-o", "--output", required=True, type=Path, help="the run's folder")
    parser.add_argument("changes", nargs="*", help="key=value, for example loss.ssim=0.2")
    arguments = parser.parse_intermixed_args()
    config = make_config(TrainConfig, arguments.config, arguments.changes)
    write_text(arguments.output / "train.json", json.dumps(asdict(config), indent=2) + "\n")
    train(config, arguments.output)


if __name__ == "__main__":
    main()
