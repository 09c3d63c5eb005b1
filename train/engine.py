"""DeepSpeed, and nothing else of the project imports it: the engine, its configuration, its checkpoints."""

import json
import os
import shutil
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")

import deepspeed
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.utils import combine_grad_norm_groups
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

from lrm4d.checkpoint import read_json, read_safetensors, write_safetensors, write_text

# DeepSpeed calls the old names of collectives; once a step and process that would bury the progress.
warnings.filterwarnings("ignore", message=".*torch.distributed.* is deprecated", category=FutureWarning)

OBJECTS: dict[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    LossScaler: (lambda scaler: scaler.cur_scale, LossScaler),
    ZeroStageEnum: (int, ZeroStageEnum),
    fragment_address: (lambda piece: [piece.numel, piece.start], lambda pair: fragment_address(*pair)),
}
"""What ZeRO's states hold besides plain data: how each is written as plain data, and made from it again."""
OURS = {
    "gradient_accumulation_steps": "accumulate",
    "gradient_clipping": "clip",
    "train_batch_size": "views_per_step",
    "train_micro_batch_size_per_gpu": "views_per_step",
    "optimizer": "optimizer",
    "scheduler": "learning_rate",
}
"""Keys of DeepSpeed's configuration whose value a run takes from TrainConfig, and from which of its fields."""


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
        tensors[name] = value.detach().to("cpu", copy=True)
        return {"tensor": name}
    if isinstance(value, dict):
        items = [[_encode(k, tensors, f"{name}.key"), _encode(v, tensors, f"{name}.{k}")] for k, v in value.items()]
        return {"dict": items}
    if isinstance(value, list | tuple | set):
        kind = "list" if isinstance(value, list) else "tuple" if isinstance(value, tuple) else "set"
        return {kind: [_encode(v, tensors, f"{name}.{i}") for i, v in enumerate(value)]}
    if type(value) in OBJECTS:
        to_plain, _ = OBJECTS[type(value)]
        return {"object": [type(value).__name__, to_plain(value)]}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise ValueError(
        f"checkpoint entry {name}: cannot store a {type(value).__name__} without pickle; "
        "known are tensors, plain data and " + ", ".join(kind.__name__ for kind in OBJECTS) + "."
    )


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "object":
        name, plain = content
        (from_plain,) = (make for made, (_, make) in OBJECTS.items() if made.__name__ == name)
        return from_plain(plain)
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
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    # Its operator for inference is compiled at the first start, under a lock in the home folder that a killed process
    # leaves behind: every later start would wait for it for ever.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("nccl" if cuda else "gloo", verbose=False)
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), device


def check_deepspeed(extra: dict[str, Any], optimizer: str) -> int:
    """Refuse at the start what would be ignored, or lost at the first checkpoint; returns the stage of ZeRO."""
    for key, ours in OURS.items():
        if key in extra:
            raise ValueError(f"deepspeed.{key} is set by {ours}={extra[key]!r} in this project: change that instead.")
    for kind in ("bf16", "fp16"):
        if extra.get(kind, {}).get("enabled"):
            raise ValueError(f"deepspeed.{kind}.enabled: weights stay float32, bf16=true runs the layers in bfloat16.")
    stage = int(extra.get("zero_optimization", {}).get("stage", 0))
    if stage and optimizer != "adamw":
        raise ValueError(
            f"optimizer={optimizer} needs whole matrices, ZeRO stage {stage} cuts them into flat pieces: "
            "use optimizer=adamw, or stage 0."
        )
    return stage


class Engine:
    """A network under DeepSpeed: backward, step, average of the weights, save, resume.

    accumulate: how many calls of backward one step has. average: whether to average the weights over the steps. extra:
    DeepSpeed's configuration, with which stage of ZeRO: 1 shares out the optimizer's state, 2 the gradients too,
    3 the weights too.
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
        config = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": accumulate,
            "gradient_clipping": clip,
            "steps_per_print": 10**9,
            **extra,
        }
        self.engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
        self.engine.checkpoint_engine = SafetensorsCheckpoints()
        self.stage = int(self.engine.zero_optimization_stage())
        self._check_own_parameters()
        self.norm, self.limit = float("inf"), float("inf")
        self._watch_norm()
        self.average = [piece.clone() for piece in self._pieces()] if average else None

    def _check_own_parameters(self) -> None:
        """Stage 3 does not fetch back for the backward pass what the network holds outside of its layers."""
        own = [name for name, _ in self.module.named_parameters(recurse=False)]
        if self.stage == 3 and own:
            raise ValueError(
                f"ZeRO stage 3 does not put {', '.join(own)} together again for the backward pass: use stage 2, "
                "or model_overrides.free_gaussians=0."
            )

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

    def step(self, learning_rate: float, ema_decay: float = 0.0, limit: float = float("inf")) -> tuple[float, bool]:
        """One update of the weights and of their average; returns the gradient's norm and whether it was applied.

        The norm is that of all processes' mean gradient before clipping. A gradient that is not finite, or longer
        than `limit`, changes nothing.
        """
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self.norm, self.limit = float("inf"), limit
        if self.stage:
            self.engine.step()  # asks _admit
            applied = self.engine.was_step_applied()
        else:
            gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
            applied = bool(self._admit(torch.nn.utils.get_total_norm(gradients)).isfinite())
            if applied:
                self.engine.step()
            else:
                self.engine.zero_grad()
        if applied and self.average is not None:
            torch._foreach_lerp_(self.average, self._pieces(), 1 - ema_decay)
        return self.norm, applied

    def _admit(self, norm: Tensor) -> Tensor:
        """The norm itself, or infinity, which DeepSpeed too takes for a gradient to throw away."""
        self.norm = float(norm) if norm >= 0 else float("nan")  # DeepSpeed writes -1 for what is not finite
        return norm if 0 <= self.norm <= self.limit else torch.full_like(norm, float("inf"))

    def _watch_norm(self) -> None:
        """Put _admit where ZeRO learns the norm of the gradient that it has shared out: nobody else ever sees it."""
        optimizer = self.engine.optimizer
        if self.stage == 3:
            groups = optimizer._get_norm_groups
            optimizer._get_norm_groups = lambda: [self._admit(combine_grad_norm_groups(groups()))]
        elif self.stage:
            whole = optimizer.scaled_global_norm
            optimizer.scaled_global_norm = lambda: self._admit(whole())

    def agree(self, wish: bool) -> bool:
        """Whether any process wishes it: clocks differ, and a checkpoint needs all processes at once."""
        if self.engine.world_size == 1:
            return wish  # without waiting for the device
        wishes = torch.tensor(float(wish), device=self.engine.device)
        torch.distributed.all_reduce(wishes, torch.distributed.ReduceOp.MAX)
        return bool(wishes)

    def weights(self) -> dict[str, Tensor]:
        """The network's state to use and to ship, averaged where the weights are averaged. All processes must ask."""
        pieces = self._pieces() if self.average is None else self.average
        parameters = self.module.named_parameters()
        whole = {name: self._join(p, piece) for (name, p), piece in zip(parameters, pieces, strict=True)}
        return {**self.module.state_dict(), **whole}

    def _pieces(self) -> list[Tensor]:
        """What this process holds of each parameter: all of it, or its share under stage 3."""
        return [(p.ds_tensor if self.stage == 3 else p).detach() for p in self.module.parameters()]

    def _join(self, parameter: nn.Parameter, piece: Tensor) -> Tensor:
        if self.stage != 3:
            return piece
        shares = [torch.empty_like(piece) for _ in range(self.engine.world_size)]
        torch.distributed.all_gather(shares, piece.contiguous())
        return torch.cat(shares)[: parameter.ds_numel].view(parameter.ds_shape)

    def save(self, folder: Path, step: int, state: dict[str, Any], keep: int = 2) -> None:
        """Write folder/step_N and then point folder/latest to it; only the newest `keep` stay. state: plain data."""
        tag = f"step_{step}"
        state = {**state, "step": step, "average": self.average}
        self.engine.save_checkpoint(str(folder), tag=tag, client_state=state, save_latest=False)
        if self.engine.global_rank:
            return
        for script in ("zero_to_fp32.py", "zero_to_torch.py"):  # these read pickles, of which there are none
            (folder / script).unlink(missing_ok=True)
        write_text(folder / tag / "processes.json", json.dumps(self._layout()))
        # DeepSpeed writes this file in place: a run killed just then would find it empty and not resume.
        write_text(folder / "latest", tag)
        saved = sorted(folder.glob("step_*"), key=lambda path: int(path.name.removeprefix("step_")))
        for old in saved[:-keep]:
            shutil.rmtree(old)

    def load(self, folder: Path) -> tuple[int, dict[str, Any]]:
        """Resume from the latest checkpoint in a folder; returns its step (0 if there is none) and the state."""
        if not (folder / "latest").is_file():
            return 0, {}
        latest = folder / (folder / "latest").read_text().strip()
        self._check_layout(latest)
        _, state = self.engine.load_checkpoint(str(folder))
        if self.average is not None:
            # A run that was not averaged so far starts its average where it stands.
            saved = state["average"] or self._pieces()
            self.average = [piece.to(self.engine.device, copy=True) for piece in saved]
        return int(state["step"]), state

    def _layout(self) -> dict[str, int]:
        return {"stage": self.stage, "processes": self.engine.world_size}

    def _check_layout(self, checkpoint: Path) -> None:
        saved = read_json(checkpoint / "processes.json")
        if saved["stage"] != self.stage or (self.stage and saved != self._layout()):
            raise ValueError(
                f"{checkpoint} was written with ZeRO stage {saved['stage']} by {saved['processes']} processes, this "
                f"run has stage {self.stage} and {self.engine.world_size}: ZeRO resumes only on what it was saved on. "
                "Start it as before, or a new run from its weights (start_from=the run's folder)."
            )

    def close(self) -> None:
        """Leave the other processes; a process that just ends may take the others down."""
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
