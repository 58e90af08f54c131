"""Fisher's iris by one decision tree: the small study by which the cost of the flow itself is measured.

Maximizes the mean cross-validated `accuracy` (1 is perfect).
Data: 150 flowers, 4 lengths in cm, 3 classes. R. A. Fisher, 1936; UCI Machine Learning Repository, CC BY 4.0; packaged
with scikit-learn.
"""

import optuna


def build(trial: optuna.Trial):
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(
        max_depth=trial.suggest_int("max_depth", 2, 16),
        criterion=trial.suggest_categorical("criterion", ["gini", "entropy"]),
    )
