"""An unchanged Optuna script: a decision tree on Fisher's iris, scored by 5-fold cross-validated accuracy (maximize).

Data: `sklearn.datasets.load_iris`, 150 rows, 4 features, 3 classes (R. A. Fisher, 1936; public domain).
"""

import optuna
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_score
from sklearn.tree import DecisionTreeClassifier

X, y = load_iris(return_X_y=True)


def objective(trial: optuna.Trial) -> float:
    tree = DecisionTreeClassifier(
        max_depth=trial.suggest_int("max_depth", 2, 16),
        criterion=trial.suggest_categorical("criterion", ["gini", "entropy"]),
        random_state=0,
    )
    return float(cross_val_score(tree, X, y, cv=5).mean())
