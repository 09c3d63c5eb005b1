"""DeepSpeed, and nothing else of the project imports it: the engine, its configuration, its checkpoints."""

import json
import math
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import deepspeed
import torch
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointEngine
from torch import Tensor, nn

from lrm4d.checkpoint import read_safetensors, write_safetensors, write_text


class SafetensorsCheckpoints(CheckpointEngine):
    """DeepSpeed's checkpoints as safetensors with JSON, so that nothing is ever unpickled."""

    def __init__(self):
        super().__init__(None)
        self.name = "SafetensorsCheckpoints"

    def create(self, info) -> None:
        """Nothing to prepare."""

    def save(self, state_dict: dict, path: str) -> None:
        """Write one file; ValueError for anything that is neither a tensor nor plain data."""
        tensors: dict[str, Tensor] = {}
        structure = _encode(state_dict, tensors, "")
        write_safetensors(path, tensors, {"structure": json.dumps(structure)})

    def load(self, path: str, map_location=None) -> dict:
        """Read one file."""
        tensors, metadata = read_safetensors(path)
        device = map_location if isinstance(map_location, str | torch.device) else "cpu"
        return _decode(json.loads(metadata["structure"]), {k: v.to(device) for k, v in tensors.items()})

    def commit(self, info) -> bool:
        """Files are written atomically one by one."""
        return True


def _encode(value: Any, tensors: dict[str, Tensor], name: str) -> Any:
    """Nested plain data as JSON, each tensor as a reference to its name."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().clone()
        return {"tensor": name}
    if isinstance(value, dict):
        items = [[_encode(k, tensors, f"{name}.key"), _encode(v, tensors, f"{name}.{k}")] for k, v in value.items()]
        return {"dict": items}
    if isinstance(value, list | tuple | set):
        kind = "list" if isinstance(value, list) else "tuple" if isinstance(value, tuple) else "set"
        return {kind: [_encode(v, tensors, f"{name}.{i}") for i, v in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"checkpoint entry {name}: cannot store a {type(value).__name__} without pickle.")


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {_decode(k, tensors): _decode(v, tensors) for k, v in content}
    return {"list": list, "tuple": tuple, "set": set}[kind](_decode(v, tensors) for v in content)


def start_processes() -> tuple[int, int, torch.device]:
    """Join the other processes of the launcher, or be the only one. Returns rank, world size, device."""
    if "RANK" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    cuda = torch.cuda.is_available()
    if not cuda:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    deepspeed.init_distributed("nccl" if cuda else "gloo", verbose=False)
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), device


def check_deepspeed(extra: dict[str, Any]) -> None:
    """Refuse what a run would lose by: ZeRO's states hold objects that SafetensorsCheckpoints does not store yet."""
    stage = extra.get("zero_optimization", {}).get("stage", 0)
    if stage:
        raise ValueError(f"deepspeed.zero_optimization.stage={stage}: only stage 0 can be saved and resumed for now.")


class Engine:
    """A network under DeepSpeed: backward, step, average of the weights, save, resume.

    accumulate: how many calls of backward one step has. average: whether to average the weights over the steps.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        clip: float,
        extra: dict[str, Any],
        accumulate: int = 1,
        average: bool = False,
    ):
        check_deepspeed(extra)
        config = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": accumulate,
            "gradient_clipping": clip,
            "steps_per_print": 10**9,
            **extra,
        }
        self.engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
        self.engine.checkpoint_engine = SafetensorsCheckpoints()
        self.average = self._copy_weights() if average else None

    @property
    def module(self) -> nn.Module:
        """The network itself."""
        return self.engine.module

    def forward(self, *inputs):
        """The network's answer."""
        return self.engine(*inputs)

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add a batch's share of the step's gradient; `last`: it is the last before the step."""
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss)

    def step(self, learning_rate: float, ema_decay: float = 0.0) -> float:
        """One update of the weights and of their average; returns the norm of the gradient before clipping.

        A gradient that is not finite changes nothing: the step is skipped.
        """
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate
        norm = float(torch.nn.utils.get_total_norm([p.grad for p in self.module.parameters() if p.grad is not None]))
        if not math.isfinite(norm):
            self.engine.zero_grad()
            return norm
        self.engine.step()
        if self.average is not None:
            with torch.no_grad():
                torch._foreach_lerp_(list(self.average.values()), list(self.module.parameters()), 1 - ema_decay)
        return norm

    def agree(self, wish: bool) -> bool:
        """Whether any process wishes it: clocks differ, and a checkpoint needs all processes at once."""
        wishes = torch.tensor(float(wish), device=self.engine.device)
        torch.distributed.all_reduce(wishes, torch.distributed.ReduceOp.MAX)
        return bool(wishes)

    def weights(self) -> dict[str, Tensor]:
        """The network's state to use and to ship: averaged where the weights are averaged."""
        return {**self.module.state_dict(), **(self.average or {})}

    def _copy_weights(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.module.named_parameters()}

    def save(self, folder: Path, step: int, keep: int = 2) -> None:
        """Write folder/step_N and then point folder/latest to it; only the newest `keep` stay."""
        tag = f"step_{step}"
        state = {"step": step, "average": self.average}
        self.engine.save_checkpoint(str(folder), tag=tag, client_state=state, save_latest=False)
        if self.engine.global_rank == 0:
            # DeepSpeed writes this file in place: a run killed just then would find it empty and not resume.
            write_text(folder / "latest", tag)
            saved = sorted(folder.glob("step_*"), key=lambda path: int(path.name.removeprefix("step_")))
            for old in saved[:-keep]:
                shutil.rmtree(old)

    def load(self, folder: Path) -> int:
        """Resume from the latest checkpoint in a folder; returns its step, 0 if there is none."""
        if not (folder / "latest").is_file():
            return 0
        _, state = self.engine.load_checkpoint(str(folder))
        if self.average is not None:
            # A run that was not averaged so far starts its average where it stands.
            saved = state.get("average") or self._copy_weights()
            self.average = {name: value.to(self.engine.device) for name, value in saved.items()}
        return int(state["step"])
