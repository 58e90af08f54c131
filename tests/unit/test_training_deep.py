"""The torch loop: it learns, repeats itself, stops early, and goes back to its best epoch."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from shared.domain import Table
from shared.errors import ObjectiveError
from shared.training import deep, threads
from shared.tuning.objective import FitPlan

N_ROWS = 240


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    threads.limit(1)


def table(classes: tuple[int, ...] = (0, 1, 2), shape: tuple[int, ...] = (4,)) -> Table:
    names = tuple(f"x{i}" for i in range(int(np.prod(shape))))
    task = "classification" if classes else "regression"
    return Table(features=names, dtypes=("float64",) * len(names), target="t", task=task, classes=classes, shape=shape)


def rows(shape: tuple[int, ...] = (4,)) -> pd.DataFrame:
    values = np.random.default_rng(0).normal(size=(N_ROWS, int(np.prod(shape))))
    return pd.DataFrame(values, columns=list(table(shape=shape).features))


@pytest.fixture
def separable() -> tuple[pd.DataFrame, np.ndarray]:
    """Three classes, each by the largest of three features."""
    X = rows()
    return X, X.to_numpy()[:, :3].argmax(axis=1)


def plan(**changes: object) -> FitPlan:
    return FitPlan.model_validate({"lr": 0.02, "batch_size": 32, "epochs": 15, **changes})


def network(n_out: int = 3, n_in: int = 4) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(n_in, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, n_out))


def fit(X: pd.DataFrame, y: np.ndarray, seed: int = 0, **changes: object) -> deep.DeepFit:
    arguments = {"table": table(), "metric": "neg_log_loss", "valid": (X[160:], y[160:]), "seed": seed} | changes
    with deep.seeded(seed):
        return deep.train(arguments.pop("module", None) or network(), arguments.pop("plan", plan()), X[:160], y[:160],
                          device="cpu", **arguments)  # fmt: skip


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_it_learns_a_separable_problem(separable):
    found = fit(*separable, metric="accuracy", plan=plan(epochs=30))

    assert found.best_score > 0.9
    assert not found.module.training


def test_a_regression_is_learned_in_the_units_of_its_target():
    X = rows()
    y = 1000.0 + 300.0 * X["x0"].to_numpy()
    values = table(classes=())

    found = fit(X, y, table=values, metric="r2", module=network(n_out=1), plan=plan(epochs=30))

    assert found.best_score > 0.9
    predicted = deep.predict(found.module, torch.tensor(X.to_numpy("float32")), values)
    assert predicted.mean() == pytest.approx(1000, rel=0.1)


def test_a_regression_module_can_be_exported_and_gives_the_same_values():
    X = rows()
    module = fit(X, X["x0"].to_numpy() * 5 + 70, table=table(classes=()), metric="r2", module=network(n_out=1)).module
    inputs = torch.tensor(X.to_numpy("float32"))

    exported = torch.export.export(module, (inputs[:2],), dynamic_shapes=({0: torch.export.Dim("rows", min=1)},))

    torch.testing.assert_close(exported.module()(inputs), module(inputs))


def test_the_same_seed_gives_the_same_weights_and_another_others(separable):
    first, again, other = (fit(*separable, seed=seed) for seed in (1, 1, 2))

    assert torch.equal(weights(first.module), weights(again.module))
    assert first.scores == again.scores
    assert not torch.equal(weights(first.module), weights(other.module))


def test_seeded_leaves_the_random_numbers_of_others_as_they_were():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    with deep.seeded(9):
        torch.rand(3)

    assert torch.rand(1) == expected


def test_the_best_epochs_weights_are_restored(separable):
    X, y = separable
    found = fit(X, y, plan=plan(lr=0.3, epochs=12))  # so large a step that scores go up and down

    best = max(found.scores)
    assert found.scores.index(best) + 1 == found.best_epoch < 12
    again = deep.score("neg_log_loss", table(), y[160:], deep.predict(found.module, tensor(X[160:]), table()))
    assert again == pytest.approx(best, rel=1e-6) == found.best_score


def test_training_for_as_many_epochs_as_were_best_gives_the_same_weights(separable):
    X, y = separable
    found = fit(X, y, plan=plan(lr=0.3, epochs=12))

    again = fit(X, y, plan=plan(lr=0.3, epochs=12), valid=None, epochs=found.best_epoch)

    assert torch.equal(weights(found.module), weights(again.module))
    assert again.best_epoch == found.best_epoch
    assert again.scores == ()


def test_it_stops_after_so_many_epochs_without_improvement(separable):
    X, y = separable
    found = fit(X, np.random.default_rng(1).permutation(y), plan=plan(epochs=200, patience=3))

    assert len(found.scores) == found.best_epoch + 3 < 200


def test_each_epoch_is_reported_from_1_and_a_report_may_give_up(separable):
    seen: list[int] = []

    def give_up(epoch: int, _: float) -> None:
        seen.append(epoch)
        if epoch == 3:
            raise StopIteration

    with pytest.raises(StopIteration):
        fit(*separable, on_epoch=give_up)
    assert seen == [1, 2, 3]


def test_the_transform_sees_training_batches_only(separable):
    sizes: list[int] = []

    def transform(batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        return batch

    fit(*separable, plan=plan(epochs=2, transform=transform))

    assert sizes == [32] * 10


def test_images_are_augmented_by_torchvision():
    from torchvision.transforms import v2

    X, images = rows((1, 8, 8)), table(shape=(1, 8, 8))
    y = (X.to_numpy().reshape(-1, 8, 8)[:, :4].sum(axis=(1, 2)) > 0).astype(int)
    flipped = plan(epochs=40, transform=v2.RandomHorizontalFlip())

    found = fit(X, y, table=images, metric="accuracy", module=network(3, 64), plan=flipped)

    assert found.best_score > 0.7


def test_a_last_batch_of_one_row_does_not_break_batch_normalization(separable):
    module = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))

    assert len(fit(*separable, module=module, plan=plan(batch_size=53, epochs=2)).scores) == 2


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD", "NAdam", "RMSprop"])
def test_optimizers_go_by_name_with_options(separable, optimizer):
    options = {"momentum": 0.5} if optimizer == "SGD" else {}

    assert len(fit(*separable, plan=plan(optimizer=optimizer, options=options, epochs=1)).scores) == 1


def test_a_loss_that_is_not_finite_is_an_error_that_names_the_learning_rate(separable):
    X, y = separable

    with pytest.raises(ObjectiveError, match=r"must be finite, but became nan with AdamW at lr=0\.02; lower"):
        fit(X.mask(X > 2), y)


@pytest.mark.parametrize(
    ("n_out", "classes", "message"),
    [
        (2, (0, 1, 2), r"must return logits of shape \(n_rows, 3\).*but returned \(32, 2\) for 32 rows"),
        (3, (), "must return one value per row, but returned 96 for 32 rows"),
    ],
)
def test_an_output_of_the_wrong_shape_is_an_error(separable, n_out, classes, message):
    X, y = separable

    with pytest.raises(ObjectiveError, match=message):
        fit(X, y if classes else y.astype(float), table=table(classes), metric="r2", module=network(n_out))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_trains_in_mixed_precision_and_hands_back_a_module_on_the_cpu(separable):
    X, y = separable
    with deep.seeded(0):
        found = deep.train(network(), plan(epochs=30), X[:160], y[:160], table=table(), metric="accuracy",
                           valid=(X[160:], y[160:]))  # fmt: skip

    assert found.best_score > 0.9
    assert {p.device.type for p in found.module.parameters()} == {"cpu"}


def tensor(X: pd.DataFrame) -> torch.Tensor:
    return torch.tensor(X.to_numpy("float32"))
