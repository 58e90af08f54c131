"""The blend's weights, and calibrators that are honest, light and saved without pickle."""

import numpy as np
import pytest
import skops.io
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss

from shared.domain import Table
from shared.model import TRUSTED_TYPES
from shared.training import blend

KINDS = ["temperature", "isotonic"]


def table(n_classes: int) -> Table:
    classes = tuple(range(n_classes))
    task = "classification" if classes else "regression"
    return Table(features=("a",), dtypes=("float64",), target="y", task=task, classes=classes, shape=(1,))


def overconfident(n_rows: int, n_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are the true ones to the third power, normalized, and classes drawn from the true ones."""
    rng = np.random.default_rng(seed)
    true = rng.dirichlet(np.ones(n_classes), n_rows)
    y = np.array([rng.choice(n_classes, p=p) for p in true])
    sharp = true**3
    return sharp / sharp.sum(axis=1, keepdims=True), y


@given(st.lists(st.floats(0, 1), max_size=4))
def test_weights_sum_to_one_and_none_is_negative(shares):
    weights = blend.weights(shares)
    assert len(weights) == len(shares) + 1
    assert sum(weights) == pytest.approx(1)
    assert min(weights) >= 0


def test_a_blend_is_the_weighted_mean():
    scores = [np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])]
    assert blend.blend((0.25, 0.75), scores) == pytest.approx(np.array([[0.75, 0.25]]))
    assert blend.blend((0.5, 0.5), [np.array([2.0]), np.array([4.0])]) == pytest.approx(np.array([3.0]))


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_a_calibrator_mends_overconfident_probabilities_of_new_rows(kind, n_classes):
    calibrator = blend.fit_calibrator(kind, *overconfident(4000, n_classes))
    p, y = overconfident(4000, n_classes, seed=1)
    calibrated = calibrator.predict_proba(p)
    assert calibrated.sum(axis=1) == pytest.approx(1)
    assert log_loss(y, calibrated) < log_loss(y, p) - 0.05


@pytest.mark.parametrize("n_classes", [2, 5])
def test_temperature_scaling_gives_what_scikit_learn_gives(n_classes):
    p, y = overconfident(1000, n_classes)
    ours = blend.fit_calibrator("temperature", p, y)
    beta = 1 / 3  # how the probabilities were sharpened
    expected = p**beta / (p**beta).sum(axis=1, keepdims=True)
    assert ours.predict_proba(p) == pytest.approx(expected, abs=0.05)
    theirs = CalibratedClassifierCV(FrozenEstimator(blend.scaled(n_classes)), method="temperature", cv=2).fit(p, y)
    assert ours.predict_proba(p) == pytest.approx(theirs.predict_proba(p), abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_of_exactly_zero_and_one_are_taken(kind):
    p, y = overconfident(1000, 3)
    p[::10] = np.eye(3)[y[::10]]
    calibrated = blend.fit_calibrator(kind, p, y).predict_proba(np.eye(3))
    assert np.isfinite(calibrated).all()
    assert calibrated.argmax(axis=1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_a_calibrator_is_saved_without_pickle(kind, n_classes):
    p, y = overconfident(1000, n_classes)
    calibrator = blend.fit_calibrator(kind, p, y)
    again = skops.io.loads(skops.io.dumps(calibrator), trusted=list(TRUSTED_TYPES))
    assert again.predict_proba(p) == pytest.approx(calibrator.predict_proba(p))


def test_a_class_with_one_row_can_not_be_calibrated():
    p, y = overconfident(100, 3)
    assert blend.fit_calibrator("temperature", p, np.where(y == 2, 0, y)) is None


def test_no_fold_is_calibrated_by_its_own_rows():
    """Isotonic calibration of noise looks good on its own rows; learned on other folds, it doesn't."""
    rng = np.random.default_rng(0)
    folds = [np.column_stack([p, 1 - p]) for p in rng.uniform(size=(4, 100))]
    y = [rng.integers(0, 2, 100) for _ in folds]
    rows, target = np.concatenate(folds), np.concatenate(y)
    own = log_loss(target, blend.fit_calibrator("isotonic", rows, target).predict_proba(rows))
    crossed = log_loss(target, np.concatenate(blend.cross_calibrate("isotonic", folds, y)))
    assert own < np.log(2) < crossed


def test_a_fold_s_own_target_doesn_t_change_its_calibrated_scores():
    folds = [overconfident(200, 3, seed)[0] for seed in range(3)]
    y = [overconfident(200, 3, seed)[1] for seed in range(3)]
    changed = [y[0], (y[1] + 1) % 3, y[2]]
    before, after = (blend.cross_calibrate("temperature", folds, target) for target in (y, changed))
    assert before[1] == pytest.approx(after[1])
    assert before[0] != pytest.approx(after[0])


@pytest.mark.parametrize(
    ("why", "n_classes", "n_rows", "kinds"),
    [
        ("values have no probabilities", 0, 10_000, ("none",)),
        ("few rows overfit an isotonic fit", 2, 1999, ("none", "temperature")),
        ("a thousand a class are enough", 2, 2000, ("none", "temperature", "isotonic")),
    ],
)
def test_the_calibrations_that_suit_a_target(why, n_classes, n_rows, kinds):
    assert blend.calibrations(table(n_classes), n_rows) == kinds, why
