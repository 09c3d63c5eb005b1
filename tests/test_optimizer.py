"""Muon in stacks against torch's, which goes matrix by matrix."""

from collections import Counter
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lrm4d.reconstruction import CONFIGS, ReconstructionModel
from train.optimizer import Muon, MuonWithAdamW, orthogonalize

SHAPES = [(96, 32), (32, 96), (40, 40), (96, 32), (32, 96), (40, 40), (24, 56), (96, 32)]
"""Tall, wide and square ones, mixed, and a shape that occurs once."""
LR, WEIGHT_DECAY = 0.05, 0.4


pytestmark = pytest.mark.usefixtures("one_thread")


class Count(TorchDispatchMode):
    """How often each operator runs."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls[str(function)] += 1
        return function(*args, **(kwargs or {}))


def make_matrices(shapes=SHAPES) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def set_gradients(parameters, seed: int) -> None:
    """Of sizes from 1e-3 to 1e3, of which an orthogonal step must not depend."""
    generator = torch.Generator().manual_seed(seed)
    for i, p in enumerate(parameters):
        p.grad = 10.0 ** (i % 7 - 3) * torch.randn(p.shape, generator=generator)


def make_oracle(matrices) -> torch.optim.Muon:
    return torch.optim.Muon(matrices, lr=LR, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw")


def take_step(optimizer, matrices, seed: int, lr: float = LR) -> list[torch.Tensor]:
    """A step at a learning rate of its own, as the engine sets it; returns by how much each matrix moved."""
    before = [p.detach().clone() for p in matrices]
    set_gradients(matrices, seed)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    return [p.detach() - old for p, old in zip(matrices, before, strict=True)]


def assert_moved_alike(moved, expected) -> None:
    """As far as sums in bfloat16 in another order let them: singular values near 0 grow by 3.4 ** 5 of the errors."""
    for one, other in zip(moved, expected, strict=True):
        assert (one - other).norm() < 0.02 * other.norm()


def test_every_step_is_that_of_torch():
    ours, theirs = make_matrices(), make_matrices()
    optimizer, oracle = Muon(ours, LR, WEIGHT_DECAY), make_oracle(theirs)
    for step in range(6):
        lr = LR / (1 + step)
        assert_moved_alike(take_step(optimizer, ours, step, lr), take_step(oracle, theirs, step, lr))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(optimizer.state[one], oracle.state[other])


def test_weights_decay_by_themselves():
    matrices = make_matrices()
    optimizer = Muon(matrices, LR, WEIGHT_DECAY)
    expected = [(1 - LR * WEIGHT_DECAY) * p.detach() for p in matrices]
    for p in matrices:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    torch.testing.assert_close([p.detach() for p in matrices], expected)


@pytest.mark.parametrize("shape", [(96, 32), (32, 96)])
def test_orthogonalized_matrices_keep_their_directions_and_lose_their_sizes(shape):
    stack = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalize(stack * torch.tensor([1e-3, 1.0, 1e3, 0.0])[:, None, None]).float()
    left, _, right = torch.linalg.svd(stack, full_matrices=False)
    inner = left.mT @ found @ right.mT
    sizes = inner[:3].diagonal(dim1=1, dim2=2)
    assert sizes.min() > 0.6 and sizes.max() < 1.3
    assert (inner[:3] - sizes.diag_embed()).abs().max() < 0.05
    assert torch.equal(found[3], torch.zeros(shape))


def test_what_has_no_gradient_is_left_alone():
    matrices = make_matrices()
    optimizer = Muon(matrices, LR, WEIGHT_DECAY)
    before = [p.detach().clone() for p in matrices]
    optimizer.step()
    set_gradients(matrices[:5], 0)
    optimizer.step()
    for i, (p, old) in enumerate(zip(matrices, before, strict=True)):
        assert torch.equal(p, old) == (i >= 5) == (p not in optimizer.state)


def test_more_matrices_of_the_same_shapes_are_no_more_operations_and_none_waits():
    counts = []
    for times in (1, 5):
        matrices = make_matrices(times * SHAPES)
        optimizer = Muon(matrices, LR, WEIGHT_DECAY)
        take_step(optimizer, matrices, 0)
        with Count() as count:
            optimizer.step()
        counts.append(count.calls)
    assert counts[0] == counts[1]
    assert counts[0]["aten.bmm.default"] == 4 * 5
    assert "aten._local_scalar_dense.default" not in counts[0]


def test_goes_on_from_checkpoints_of_torchs_muon():
    ours, theirs = make_matrices(), make_matrices()
    optimizer, oracle = Muon(ours, 1.0, 1.0), make_oracle(theirs)
    for step in range(3):
        take_step(oracle, theirs, step)
    with torch.no_grad():
        torch._foreach_copy_(ours, theirs)
    optimizer.load_state_dict(deepcopy(oracle.state_dict()))  # which else would share its momenta
    assert_moved_alike(take_step(optimizer, ours, 3), take_step(oracle, theirs, 3))


def test_resumes_exactly_from_a_file(tmp_path):
    from train.engine import SafetensorsCheckpoints

    def start() -> tuple[list[torch.nn.Parameter], MuonWithAdamW]:
        torch.manual_seed(0)
        model = ReconstructionModel(replace(CONFIGS["nano"], width=64, layers=2))
        return list(model.parameters()), MuonWithAdamW(model, LR, WEIGHT_DECAY)

    (ours, whole), (others, resumed) = start(), start()
    for step in range(2):
        take_step(whole, ours, step)
    checkpoints = SafetensorsCheckpoints()
    checkpoints.save({"weights": [p.detach() for p in ours], "optimizer": whole.state_dict()}, tmp_path / "state.pt")
    loaded = checkpoints.load(tmp_path / "state.pt")
    with torch.no_grad():
        torch._foreach_copy_(others, loaded["weights"])
    resumed.load_state_dict(loaded["optimizer"])
    for step in range(2, 4):
        take_step(whole, ours, step, 0.01)
        take_step(resumed, others, step, 0.01)
    for one, other in zip(ours, others, strict=True):
        assert torch.equal(one, other)
