"""The torch loop: small data stays on the device, batches are drawn by index, the best epoch's weights are kept.

On a CPU a fit is repeated exactly from its seed. On a GPU it uses mixed precision, and repeats up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.errors import ObjectiveError
from shared.training.scoring import score

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch
    from torch import Tensor, nn

    from shared.domain import Table
    from shared.tuning.objective import FitPlan

OnEpoch = Callable[[int, float], None]
MAX_GRADIENT_NORM = 10.0
ROWS_PER_FORWARD = 4096


@dataclass(frozen=True)
class DeepFit:
    """A trained module, in eval mode on the CPU. Epochs count from 1; without validation `scores` is empty."""

    module: nn.Module
    best_epoch: int
    scores: tuple[float, ...] = ()
    best_score: float = math.nan


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's random numbers (initial weights, dropout, augmentation) from a seed, and afterwards as before."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def train(
    module: nn.Module,
    plan: FitPlan,
    X: pd.DataFrame,
    y: np.ndarray,
    *,
    table: Table,
    metric: str = "",
    valid: tuple[pd.DataFrame, np.ndarray] | None = None,
    on_epoch: OnEpoch | None = None,
    epochs: int | None = None,
    seed: int = 0,
    device: str | None = None,
) -> DeepFit:
    """Train a module on rows; with `valid` rows, stop early by `plan.patience` and go back to the best epoch.

    module: `float32 (n_rows, *table.shape)` → logits `(n_rows, n_classes)`, or values `(n_rows,)` or `(n_rows, 1)`,
    which it learns in units of the target's standard deviation; the returned module gives raw units.
    `on_epoch(epoch, score)` may raise to give up. epochs: instead of the plan's. device: by default the GPU if any.

    Raises:
        ObjectiveError: the loss isn't finite, or the output's shape doesn't fit the target.
    """
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = (_in_raw_units(module, y) if table.task == "regression" else module).to(device)
    rows, target = _tensor(X, table, device), _target(y, table, device)
    held_out = None if valid is None else (_tensor(valid[0], table, device), valid[1])
    fit_epoch = _epoch(model, plan, table, seed, device)
    course: list[float] = []
    best, weights = 0, None
    for _ in range(epochs or plan.epochs):
        fit_epoch(rows, target)
        if held_out is None:
            continue
        course.append(score(metric, table, held_out[1], predict(model, held_out[0], table)))
        if len(course) == 1 or course[-1] > course[best - 1]:
            best, weights = len(course), _copy(model)
        if on_epoch is not None:
            on_epoch(len(course), course[-1])
        if plan.patience is not None and len(course) - best >= plan.patience:
            break
    if weights is None:
        return DeepFit(model.cpu().eval(), epochs or plan.epochs)
    model.load_state_dict(weights)
    return DeepFit(model.cpu().eval(), best, tuple(course), course[best - 1])


def predict(model: nn.Module, rows: Tensor, table: Table) -> np.ndarray:
    """Probabilities `(n_rows, n_classes)` or values `(n_rows,)`, by batches, on the device of the rows."""
    import torch

    model.eval()
    with torch.inference_mode():
        answers = torch.cat([model(batch) for batch in rows.split(ROWS_PER_FORWARD)]).double()
    answers = answers.softmax(dim=1) if table.classes else answers.flatten()
    return answers.cpu().numpy()  # type: ignore[no-any-return]  # torch is not followed


def _epoch(model: nn.Module, plan: FitPlan, table: Table, seed: int, device: str) -> Callable[[Tensor, Tensor], None]:
    """One pass over the rows in random order, as a function that remembers optimizer, scaler and generator."""
    import torch

    arguments = {"lr": plan.lr, "weight_decay": plan.weight_decay, **plan.options}
    optimizer = getattr(torch.optim, plan.optimizer)(model.parameters(), **arguments)
    precision, scaler = _mixed_precision(device)
    order, loss_of = torch.Generator().manual_seed(seed), _loss(model, table)

    def fit_epoch(rows: Tensor, target: Tensor) -> None:
        model.train()
        total = torch.zeros((), device=device)
        for index in _batches(len(rows), plan.batch_size, order):
            batch = rows[index.to(device)]
            optimizer.zero_grad(set_to_none=True)
            with precision():
                loss = loss_of(batch if plan.transform is None else plan.transform(batch), target[index.to(device)])
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
            scaler.step(optimizer)
            scaler.update()
            total += loss.detach()
        if not torch.isfinite(total):
            raise ObjectiveError(
                f"a training loss must be finite, but became {total.item()} with {plan.optimizer} at lr={plan.lr:g}; "
                "lower the learning rates in `fit_plan`, or scale the inputs in the module's first layer"
            )

    return fit_epoch


def _batches(n_rows: int, size: int, order: torch.Generator) -> Iterator[Tensor]:
    """Row positions of each batch; a last batch of one row is left out: batch normalization can't learn from it."""
    import torch

    batches = torch.randperm(n_rows, generator=order).split(size)
    return (index for index in batches if len(index) > 1 or size == 1 or n_rows == 1)


def _loss(model: nn.Module, table: Table) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross-entropy, or the squared error in units of the target's variance."""
    from torch.nn.functional import cross_entropy, mse_loss

    def classification(batch: Tensor, target: Tensor) -> Tensor:
        logits = model(batch)
        if logits.shape != (len(batch), len(table.classes)):
            raise ObjectiveError(
                f"a module must return logits of shape (n_rows, {len(table.classes)}), one per class, "
                f"but returned {tuple(logits.shape)} for {len(batch)} rows; change its last layer"
            )
        return cross_entropy(logits, target)

    def regression(batch: Tensor, target: Tensor) -> Tensor:
        values = model(batch)
        if values.shape != target.shape:
            raise ObjectiveError(
                f"a module must return one value per row, but returned {values.numel()} "
                f"for {len(batch)} rows; change its last layer"
            )
        return mse_loss(values / model.scale, target / model.scale)

    return classification if table.classes else regression


def _in_raw_units(module: nn.Module, y: np.ndarray) -> nn.Module:
    """The module, which learns a standardized target, followed by the way back to the target's units."""
    import torch

    class RawUnits(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
        def __init__(self) -> None:
            super().__init__()
            self.module = module
            self.register_buffer("mean", torch.tensor(float(y.mean())))
            self.register_buffer("scale", torch.tensor(float(y.std()) or 1.0))

        def forward(self, rows: Tensor) -> Tensor:
            return self.module(rows).float().flatten() * self.scale + self.mean

    return RawUnits()


def _mixed_precision(device: str) -> tuple[Callable[[], AbstractContextManager[Any]], Any]:
    """Autocast and gradient scaler: bfloat16 on a GPU that has it, else float16 and scaled losses; float32 on a CPU."""
    import torch

    on_gpu = device.startswith("cuda")
    half = torch.bfloat16 if on_gpu and torch.cuda.is_bf16_supported() else torch.float16
    scaler = torch.amp.GradScaler(device, enabled=on_gpu and half is torch.float16)
    return lambda: torch.autocast(torch.device(device).type, half, enabled=on_gpu), scaler


def _tensor(X: pd.DataFrame, table: Table, device: str) -> Tensor:
    import torch

    return torch.from_numpy(X.to_numpy("float32", copy=True)).reshape(-1, *table.shape).to(device)


def _target(y: np.ndarray, table: Table, device: str) -> Tensor:
    import torch

    return torch.as_tensor(y.copy(), dtype=torch.int64 if table.classes else torch.float32, device=device)


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
