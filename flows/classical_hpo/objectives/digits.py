"""Handwritten digits by classical models: four families in one conditional space.

Maximizes the mean cross-validated `neg_log_loss` (in nats per row; 0 is perfect).
Data: 1,797 gray images of 8 x 8 pixels, values 0-16, ten classes. E. Alpaydin and C. Kaynak, "Optical Recognition of
Handwritten Digits", UCI Machine Learning Repository, 1998, CC BY 4.0; packaged with scikit-learn.
"""

import optuna


def build(trial: optuna.Trial):
    """The family is the first choice; each imports only what it needs."""
    families = {"linear": linear, "svm": svm, "forest": forest, "xgboost": xgboost}
    return families[trial.suggest_categorical("family", list(families))](trial)


def linear(trial: optuna.Trial):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        StandardScaler(), LogisticRegression(C=trial.suggest_float("linear_C", 1e-2, 10, log=True), max_iter=500)
    )


def svm(trial: optuna.Trial):
    """One margin per digit, whose sizes can be calibrated; SVC's own answer to ten classes counts votes instead.

    Pixels share one unit, so they aren't scaled: that would blow up those that are nearly always blank.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.svm import SVC

    kernel = SVC(
        C=trial.suggest_float("svm_C", 1, 30, log=True),
        gamma=trial.suggest_float("svm_gamma", 4e-4, 2e-3, log=True),
    )
    return CalibratedClassifierCV(OneVsRestClassifier(kernel), method="temperature", cv=2, ensemble=False)


def forest(trial: optuna.Trial):
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

    kinds = {"extra": ExtraTreesClassifier, "random": RandomForestClassifier}
    return kinds[trial.suggest_categorical("forest_kind", list(kinds))](
        n_estimators=trial.suggest_int("forest_trees", 50, 150, step=25),
        max_features=trial.suggest_float("forest_max_features", 0.05, 0.5, log=True),
        min_samples_leaf=trial.suggest_int("forest_min_samples_leaf", 1, 4),
    )


def xgboost(trial: optuna.Trial):
    from xgboost import XGBClassifier

    return XGBClassifier(
        tree_method="hist",
        max_bin=16,  # a pixel has 17 values
        n_estimators=trial.suggest_int("xgb_rounds", 40, 100, step=20),
        max_depth=trial.suggest_int("xgb_max_depth", 2, 4),
        learning_rate=trial.suggest_float("xgb_learning_rate", 0.1, 0.5, log=True),
        subsample=trial.suggest_float("xgb_subsample", 0.5, 1.0),
        colsample_bytree=trial.suggest_float("xgb_colsample_bytree", 0.2, 0.8),
        reg_lambda=trial.suggest_float("xgb_lambda", 0.1, 10, log=True),
    )


if __name__ == "__main__":
    from shared.flow.tryout import try_out

    try_out(__file__)
