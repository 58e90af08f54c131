"""What a system predicts: columns, codes, blend, calibration, labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from shared.model import Member, Signature, System

SIGNATURE = Signature(("a", "b"), (2,), ("low", "mid", "high"))


@pytest.fixture(scope="module")
def rows() -> tuple[pd.DataFrame, np.ndarray]:
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(90, 2)), columns=["a", "b"])
    return X, np.digitize(X["a"], [-0.4, 0.4])


def classifier(rows: tuple[pd.DataFrame, np.ndarray], C: float = 1.0) -> LogisticRegression:
    return LogisticRegression(C=C).fit(*rows)


def test_probabilities_are_in_code_order_and_predictions_are_labels(rows):
    model = classifier(rows)
    system = System(SIGNATURE, [Member("one", model)])
    np.testing.assert_array_equal(system.predict_proba(rows[0]), model.predict_proba(rows[0]))
    assert system.predict(rows[0]).tolist() == [SIGNATURE.classes[code] for code in model.predict(rows[0])]


@pytest.mark.parametrize("classes", [(3, 7, 9), (False, True), (0.5, 1.5), (1, "one")])
def test_labels_keep_their_type(rows, classes):
    X, y = rows
    model = LogisticRegression().fit(X, y % len(classes))
    labels = System(Signature(("a", "b"), (2,), classes), [Member("one", model)]).predict(X)
    assert set(labels.tolist()) <= set(classes)


def test_a_class_that_a_member_never_saw_gets_no_probability(rows):
    X, y = rows
    model = LogisticRegression().fit(X[y != 1], y[y != 1])
    proba = System(SIGNATURE, [Member("one", model)]).predict_proba(X)
    np.testing.assert_array_equal(proba[:, [0, 2]], model.predict_proba(X))
    assert not proba[:, 1].any()


def test_members_are_blended_by_their_weights(rows):
    first, second = Member("first", classifier(rows)), Member("second", classifier(rows, C=0.01))
    blended = System(SIGNATURE, [first, second], [0.25, 0.75]).scores(rows[0])
    parts = [member.scores(rows[0], SIGNATURE) for member in (first, second)]
    np.testing.assert_allclose(blended, 0.25 * parts[0] + 0.75 * parts[1], rtol=1e-12)


def test_a_member_of_no_weight_is_not_asked(rows):
    system = System(SIGNATURE, [Member("one", classifier(rows)), Member("broken", object())], [1.0, 0.0])
    assert system.predict(rows[0]).shape == (90,)


def test_the_calibrator_sees_the_blend_and_has_the_last_word(rows):
    X, y = rows
    blend = System(SIGNATURE, [Member("one", classifier(rows))]).scores(X)
    calibrator = LogisticRegression().fit(blend, y)
    system = System(SIGNATURE, [Member("one", classifier(rows))], calibrator=calibrator)
    np.testing.assert_array_equal(system.scores(X), calibrator.predict_proba(blend))


@pytest.mark.parametrize("output", ["default", "pandas"])
def test_preprocessing_gives_the_estimator_a_frame_of_the_same_columns(rows, output):
    X, y = rows
    scaler = StandardScaler().set_output(transform=output).fit(X)
    scaled = pd.DataFrame(np.asarray(scaler.transform(X)), columns=X.columns)
    model = LogisticRegression().fit(scaled, y)
    proba = Member("one", model, scaler).scores(X, SIGNATURE)
    np.testing.assert_array_equal(proba, model.predict_proba(scaled))


def test_columns_are_found_by_name_whatever_their_order(rows):
    system = System(SIGNATURE, [Member("one", classifier(rows))])
    np.testing.assert_array_equal(system.scores(rows[0][["b", "a"]]), system.scores(rows[0]))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["a"], "missing: b"),
        (["a", "b", "c"], "unknown: c"),
        (["a", "B"], "missing: b; unknown: B"),
        (["a", "b", "b"], "there twice: b"),
    ],
)
def test_wrong_columns_are_named(rows, columns, message):
    X = pd.DataFrame(np.zeros((1, len(columns))), columns=columns)
    with pytest.raises(ValueError, match=rf"must have exactly the 2 columns of the model, but {message}$"):
        System(SIGNATURE, [Member("one", classifier(rows))]).predict(X)


def test_a_regression_predicts_values_and_has_no_probabilities(rows):
    X, _ = rows
    model = LinearRegression().fit(X, X["a"] + 2 * X["b"])
    system = System(Signature(("a", "b"), (2,)), [Member("one", model)])
    np.testing.assert_allclose(system.predict(X), X["a"] + 2 * X["b"])
    with pytest.raises(ValueError, match="a regression has no class probabilities; call `predict`"):
        system.predict_proba(X)


def test_a_classifier_without_probabilities_is_told_to_be_calibrated(rows):
    system = System(SIGNATURE, [Member("svc", LinearSVC().fit(*rows))])
    with pytest.raises(ValueError, match=r"svc: .*LinearSVC has none; wrap it in .*CalibratedClassifierCV"):
        system.scores(rows[0])


def test_a_system_has_one_weight_per_member():
    with pytest.raises(ValueError, match="one weight per member, but 1 for 2"):
        System(SIGNATURE, [Member("one", None), Member("two", None)])


def test_a_torch_member_gives_softmax_of_its_logits_in_chunks_of_any_size():
    torch = pytest.importorskip("torch")
    module = torch.nn.Linear(2, 3).eval()
    X = pd.DataFrame(np.random.default_rng(1).normal(size=(2500, 2)), columns=["a", "b"])
    with torch.no_grad():
        expected = torch.softmax(module(torch.tensor(X.to_numpy(dtype=np.float32))), dim=1).numpy()
    np.testing.assert_allclose(Member("net", module).scores(X, SIGNATURE), expected, atol=1e-6)


def test_a_torch_member_takes_rows_in_the_shape_of_the_signature_and_gives_values():
    torch = pytest.importorskip("torch")

    class Mean(torch.nn.Module):
        def forward(self, x):
            assert x.shape[1:] == (1, 2, 2)
            return x.mean(dim=(1, 2, 3))[:, None]

    X = pd.DataFrame(np.arange(8.0).reshape(2, 4), columns=list("abcd"))
    system = System(Signature(tuple("abcd"), (1, 2, 2)), [Member("net", Mean())])
    assert system.predict(X).tolist() == [1.5, 5.5]


def test_a_torch_member_with_too_few_logits_is_an_error_that_says_so():
    torch = pytest.importorskip("torch")
    X = pd.DataFrame(np.zeros((4, 2)), columns=["a", "b"])
    with pytest.raises(ValueError, match=r"net: .*logits of shape \(n_rows, 3\), but they are \(4, 1\)"):
        Member("net", torch.nn.Linear(2, 1)).scores(X, SIGNATURE)
