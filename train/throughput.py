"""Where the time of training goes on this device: python -m train.throughput CONFIG [key=value ...].

    python -m train.throughput train/configs/nano.yaml
    torchrun --nproc_per_node 8 -m train.throughput train/configs/one_node.yaml --steps 50
    python -m train.throughput train/configs/inpainter.yaml --task inpainter
    python -m train.throughput train/configs/small.yaml --minutes 50          # how many steps are that on this device?

Prints the shares of a step's time, scenes/s, and the network's TFLOP/s against a large matrix product on this device.
Writes nothing.
"""

import argparse
import math
from collections.abc import Sequence
from pkgutil import resolve_name
from statistics import median

from rich.console import Console
from rich.table import Table

from lrm4d.config import make_config
from train.config import RunConfig
from train.log import with_rates
from train.measuring import SHARES, measure_matmul_peak
from train.trainer import Trainer

TASKS = {
    "reconstruction": ("train.config:TrainConfig", "train.reconstruction:ReconstructionTask"),
    "inpainter": ("train.inpainter_config:InpainterConfig", "train.inpainter:InpainterTask"),
}
"""What the configuration and the task of each are; imported when asked for, since not all is installed everywhere."""
WARM_UP = 12
"""Steps that are not timed: kernels are compiled for the sizes of inputs that come."""


def measure_throughput(trainer: Trainer, first_step: int, steps: int) -> dict[str, float]:
    """Means over some steps of a run, by the names of log.jsonl, and matmul_tflop_per_s."""
    warm_up = 3
    batches = trainer.batches(first_step)
    logged = [trainer.take_step(step, batches)[0] for step in range(first_step, first_step + warm_up + steps)]
    means = with_rates(
        {name: sum(values.get(name, 0.0) for values in logged[warm_up:]) / steps for name in logged[-1]}
    )
    peak = measure_matmul_peak(trainer.device, trainer.config.bf16) / 1e12
    return {**means, "matmul_tflop_per_s": peak}


def throughput_table(means: dict[str, float], title: str) -> Table:
    """The means as a table."""
    table = Table("of a step", "seconds", "share", title=title)
    whole = sum(means[name] for name in SHARES)
    for name, words in SHARES.items():
        table.add_row(words, f"{means[name]:.4f}", f"{means[name] / whole:.1%}")
    table.add_row("all", f"{whole:.4f}", f"{means['scenes_per_s']:.2f} scenes/s", end_section=True)
    rate, peak = means["network_tflop_per_s"], means["matmul_tflop_per_s"]
    table.add_row("network", f"{rate:.4g} TFLOP/s", f"{rate / peak:.1%} of matmul")
    table.add_row("a large matrix product", f"{peak:.4g} TFLOP/s", "")
    return table


def time_stages(trainer: Trainer, steps: int) -> list[float]:
    """Seconds a step in each stage of a run, the median of some."""
    config, seconds, begin = trainer.config, [], 0.0
    for stage in config.stages:
        first = math.ceil(begin * config.steps)
        batches = trainer.batches(first)
        logged = [trainer.take_step(step, batches, exact=False)[0] for step in range(first, first + WARM_UP + steps)]
        seconds.append(median(values["step_s"] + values["wait_s"] for values in logged[WARM_UP:]))
        begin = stage.until
    return seconds


def steps_that_fit(config: RunConfig, seconds: Sequence[float], minutes: float) -> int:
    """The steps that a run with these stages does in so many minutes, with `seconds` a step in each stage."""
    ends = [min(stage.until, 1.0) for stage in config.stages]
    shares = [end - begin for begin, end in zip([0.0, *ends], ends, strict=False)]
    return int(60 * minutes / sum(share * time for share, time in zip(shares, seconds, strict=True)))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a YAML file of train/configs")
    parser.add_argument("--task", choices=TASKS, default="reconstruction", help="what the file configures")
    parser.add_argument("--steps", type=int, default=20, help="how many steps to measure")
    parser.add_argument("--from-step", type=int, default=0, help="the first of them, which has its stage's size")
    parser.add_argument("--minutes", type=float, help="say how many steps a run does in so many minutes instead")
    parser.add_argument("changes", nargs="*", help="key=value, for example bf16=false")
    arguments = parser.parse_intermixed_args()
    schema, task = map(resolve_name, TASKS[arguments.task])
    trainer = Trainer(task(make_config(schema, arguments.config, arguments.changes)))
    if arguments.minutes:
        seconds = time_stages(trainer, arguments.steps)
        told = ", ".join(f"{time:.3f} s" for time in seconds)
        print(f"steps={steps_that_fit(trainer.config, seconds, arguments.minutes)} (a step of each stage: {told})")
        trainer.engine.close()
        return
    means = measure_throughput(trainer, arguments.from_step, arguments.steps)
    if trainer.rank == 0:
        Console().print(throughput_table(means, f"{arguments.config}, {arguments.steps} steps"))
    trainer.engine.close()


if __name__ == "__main__":
    main()
