"""Where a step's time goes, how much arithmetic the network did, and how much this device could have done."""

import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

SHARES = {
    "wait_s": "waiting for data",
    "network_s": "network, forward",
    "render_s": "rendering and losses, forward",
    "render_backward_s": "rendering and losses, backward",
    "network_backward_s": "network, backward",
    "optimizer_s": "optimizer",
}
"""The parts of a step's time, in seconds, as log.jsonl names them, and in words."""


class Stopwatch:
    """Seconds by part: each lap is the time since the last one, with the work of CUDA waited for if it is exact."""

    def __init__(self, device: torch.device):
        self.device = device
        self.laps: dict[str, float] = {}
        self.start()

    def start(self, exact: bool = True) -> None:
        """Forget what was measured and begin anew. Not exact: CUDA is not held up, only the sum of laps is true."""
        self.exact = exact
        self.laps = dict.fromkeys(SHARES, 0.0)
        self.last = self._now()

    def lap(self, part: str) -> None:
        """The time since the last lap, or since the start, went to this part."""
        now = self._now()
        self.laps[part] += now - self.last
        self.last = now

    def lap_when_backward_reaches(self, outputs: Iterable[Tensor]) -> None:
        """In the coming backward pass, what comes before the network's outputs have their gradient is the losses'."""
        for value in outputs:
            if value.requires_grad:
                value.register_hook(lambda _: self.lap("render_backward_s"))

    def _now(self) -> float:
        if self.exact and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def _runs_flops(inputs: tuple[Tensor, list[int]], output: Tensor) -> int:
    return sum(4 * length**2 for length in inputs[1]) * output.shape[-1]


def _sequence_flops(inputs: tuple[Tensor, Tensor | None], output: Tensor) -> int:
    states, others = inputs[:2]
    return 4 * output.numel() * (states if others is None else others).shape[1]


ATTENTION: dict[str, Callable[[tuple, Tensor], int]] = {
    "SelfAttention": _runs_flops,
    "WanAttention": _sequence_flops,
}
"""What attention's products of queries, keys and values take, from its inputs and output: by the class's name, so that
a run does not import the networks that it does not train. Masks count as if all were computed."""


class FlopCount:
    """Floating-point operations of a network's linear layers and attention in the forward passes since the last take.

    A multiplication and an addition are two. The backward pass has twice as many; activations that are computed again
    are work, but not progress, and do not count.
    """

    def __init__(self, model: nn.Module):
        self.count, self.counting = 0, False
        model.register_forward_pre_hook(lambda *_: self._set(True))
        model.register_forward_hook(lambda *_: self._set(False))
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_hook(self._add_linear)
            elif type(module).__name__ in ATTENTION:
                module.register_forward_hook(self._adder(ATTENTION[type(module).__name__]))

    def take(self) -> int:
        """The count since the last call."""
        count, self.count = self.count, 0
        return count

    def _set(self, counting: bool) -> None:
        self.counting = counting

    def _add_linear(self, layer: nn.Linear, inputs: tuple[Tensor], output: Tensor) -> None:
        self.count += self.counting * 2 * layer.in_features * output.numel()

    def _adder(self, count: Callable[[tuple, Tensor], int]) -> Callable[[nn.Module, tuple, Tensor], None]:
        def add(_: nn.Module, inputs: tuple, output: Tensor) -> None:
            self.count += self.counting * count(inputs, output)

        return add


def measure_matmul_peak(device: torch.device, bf16: bool, repeats: int = 5) -> float:
    """FLOP/s of the fastest of a few products of large square matrices, bfloat16 or float32."""
    side = 8192 if device.type == "cuda" else 1024
    matrix = torch.randn(side, side, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)
    watch = Stopwatch(device)
    seconds = []
    for _ in range(1 + repeats):
        watch.start()
        matrix @ matrix
        watch.lap("network_s")
        seconds.append(watch.laps["network_s"])
    return 2 * side**3 / min(seconds[1:])
