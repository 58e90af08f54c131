"""Networks as they are loaded: the graph that was saved, run operator by operator, without torch's compiler."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from shared.model import Member, Signature, System, save
from shared.registry import graphs

ROOT = Path(__file__).parents[2]
TIMES, WIDTH = 6, 8


class Recurrent(nn.Module):
    """Its state begins with zeros, made for as many rows as there are."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(WIDTH, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cell(x)[0][:, -1])


class Attending(nn.Module):
    """Reshapes by the number of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True), nn.Linear(TIMES * WIDTH, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x).reshape(x.shape[0], -1))


class Mixed(nn.Module):
    """Constants, buffers that aren't saved with the weights, tied weights, several results, an infinite number."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(WIDTH, WIDTH)
        self.other = nn.Linear(WIDTH, WIDTH)
        self.other.weight = self.one.weight
        self.register_buffer("scale", torch.arange(1.0, WIDTH + 1), persistent=False)
        self.steps = torch.tensor([0.5, 2.0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low, high = torch.relu_(self.other(self.one(x)) * self.scale).split(WIDTH // 2, dim=-1)
        best, at = torch.where(low > high, low, float("-inf")).max(dim=1)
        mean = high.to(torch.float64).mean(dim=1).to(torch.float32) / x.shape[0] * (x.shape[0] + 1)
        return torch.stack([best.clamp(min=0).sum(1), at.sum(1) * self.steps[0], mean.clone().sum(1)], dim=1)


class Branching(nn.Module):
    """Takes one of two ways by its values: more than calls of operators."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x: x[:, 0, :3].sin(), lambda x: x[:, 0, :3].cos(), (x,))


def convolutions() -> nn.Module:
    layers = (nn.Conv1d(TIMES, 4, 3, padding="same"), nn.BatchNorm1d(4), nn.GELU(), nn.MaxPool1d(2), nn.Flatten())
    return nn.Sequential(*layers, nn.Dropout(0.3), nn.LazyLinear(3))


NETWORKS = {
    "convolutions": convolutions,
    "recurrent": Recurrent,
    "attending": Attending,
    "mixed": Mixed,
    "branching": Branching,
}


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    found = NETWORKS[name]().eval()
    found(torch.zeros(1, TIMES, WIDTH))
    return found


def saved(module: nn.Module) -> bytes:
    signature = Signature(tuple(map(str, range(TIMES * WIDTH))), (TIMES, WIDTH), (0, 1, 2))
    return save(System(signature, [Member("net", module)]))["members/0/model.pt2"]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_loaded_network_answers_as_torchs_own_loader_would_let_it_to_the_last_bit(name):
    content = saved(network(name))
    loaded, theirs = graphs.network(content), torch.export.load(io.BytesIO(content)).module()
    with torch.inference_mode():
        for n_rows in (1, 2, 5):
            rows = torch.randn(n_rows, TIMES, WIDTH)
            torch.testing.assert_close(loaded(rows), theirs(rows), rtol=0, atol=0)


@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - {"branching"}))
def test_a_network_is_loaded_without_torchs_compiler(name, tmp_path):
    (tmp_path / "model.pt2").write_bytes(saved(network(name)))
    code = (
        "import sys, pathlib; from shared.registry import graphs\n"
        f"graphs.network(pathlib.Path({str(tmp_path / 'model.pt2')!r}).read_bytes())\n"
        "print(sorted({'sympy', 'torch._dynamo', 'torch._inductor', 'triton'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_numbers_mean_what_torch_means_by_them():
    from torch._export.serde import schema, serialize

    assert schema.SCHEMA_VERSION[0] == graphs._SCHEMA, "look what has changed in `torch/_export/serde/schema.py`"
    for kind, known in {
        "as_scalar_type": serialize._SERIALIZE_TO_TORCH_DTYPE,
        "as_memory_format": serialize._SERIALIZE_TO_TORCH_MEMORY_FORMAT,
        "as_layout": serialize._SERIALIZE_TO_TORCH_LAYOUT,
    }.items():
        numbers = range(1, len(graphs._NUMBERED[kind].split()) + 1)
        assert [graphs._constant(kind, number) for number in numbers] == [known[number] for number in numbers]
