"""Benign or malignant, from a fine needle aspirate: regularized linear models, kernels and trees.

Maximizes the mean cross-validated `neg_log_loss` (in nats per row; 0 is perfect).
Data: 569 rows, 30 features of cell nuclei, 2 classes. W. Wolberg, O. Mangasarian, N. Street and W. Street, "Breast
Cancer Wisconsin (Diagnostic)", UCI Machine Learning Repository, 1993, CC BY 4.0; packaged with scikit-learn.
"""

import optuna


def build(trial: optuna.Trial):
    """The family is the first choice; each imports only what it needs."""
    families = {"linear": linear, "svm": svm, "forest": forest, "xgboost": xgboost}
    return families[trial.suggest_categorical("family", list(families))](trial)


def linear(trial: optuna.Trial):
    """Features made normal first, since areas and concavities are skewed."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PowerTransformer

    return make_pipeline(PowerTransformer(), LogisticRegression(C=trial.suggest_float("linear_C", 0.1, 3, log=True)))


def svm(trial: optuna.Trial):
    """Calibrated inside the transformation, which is then fitted once."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PowerTransformer
    from sklearn.svm import SVC

    kernel = SVC(
        C=trial.suggest_float("svm_C", 0.5, 10, log=True),
        gamma=trial.suggest_float("svm_gamma", 5e-3, 0.05, log=True),
    )
    return make_pipeline(PowerTransformer(), CalibratedClassifierCV(kernel, cv=5, ensemble=False))


def forest(trial: optuna.Trial):
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

    kinds = {"extra": ExtraTreesClassifier, "random": RandomForestClassifier}
    return kinds[trial.suggest_categorical("forest_kind", list(kinds))](
        n_estimators=trial.suggest_int("forest_trees", 50, 150, step=25),
        max_features=trial.suggest_float("forest_max_features", 0.1, 1.0),
        min_samples_leaf=trial.suggest_int("forest_min_samples_leaf", 1, 4),
    )


def xgboost(trial: optuna.Trial):
    from xgboost import XGBClassifier

    return XGBClassifier(
        tree_method="hist",
        n_estimators=trial.suggest_int("xgb_rounds", 50, 200, step=25),
        max_depth=trial.suggest_int("xgb_max_depth", 1, 4),
        learning_rate=trial.suggest_float("xgb_learning_rate", 0.03, 0.3, log=True),
        subsample=trial.suggest_float("xgb_subsample", 0.4, 1.0),
        colsample_bytree=trial.suggest_float("xgb_colsample_bytree", 0.2, 1.0),
        reg_lambda=trial.suggest_float("xgb_lambda", 0.1, 10, log=True),
    )


if __name__ == "__main__":
    from shared.flow.tryout import try_out

    try_out(__file__)
