"""Disease progression one year after baseline: linear models, splines, kernels, and an average of two of them.

Maximizes the mean cross-validated `r2` (1 is perfect, 0 is the mean of the target).
Data: 442 patients, 10 features (standardized at the source), the target from 25 to 346. B. Efron, T. Hastie,
I. Johnstone and R. Tibshirani, "Least Angle Regression", Annals of Statistics 32, 2004; packaged with scikit-learn,
whose BSD 3-clause license it is under.
"""

import optuna


def build(trial: optuna.Trial):
    """The family is the first choice. All are smooth: on 442 rows, trees stay behind a straight line."""
    families = {"linear": linear, "splines": splines, "svr": svr, "kernel": kernel, "average": average}
    return families[trial.suggest_categorical("family", list(families))](trial)


def linear(trial: optuna.Trial):
    from sklearn.linear_model import ElasticNet
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    alpha = trial.suggest_float("linear_alpha", 1e-3, 0.3, log=True)
    l1_ratio = trial.suggest_float("linear_l1_ratio", 0, 1)
    return make_pipeline(StandardScaler(), ElasticNet(alpha=alpha, l1_ratio=l1_ratio, max_iter=5000))


def splines(trial: optuna.Trial):
    """Ridge regression on a cubic of each feature: effects may bend, but don't interact."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import SplineTransformer

    return make_pipeline(
        SplineTransformer(n_knots=2, degree=3), Ridge(trial.suggest_float("spline_alpha", 0.1, 3, log=True))
    )


def svr(trial: optuna.Trial):
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    return make_pipeline(
        StandardScaler(),
        SVR(
            C=trial.suggest_float("svr_C", 20, 200, log=True),
            gamma=trial.suggest_float("svr_gamma", 3e-3, 0.02, log=True),
            epsilon=trial.suggest_float("svr_epsilon", 10, 40, log=True),
        ),
    )


def average(trial: optuna.Trial):
    """One model whose effects bend and one whose features interact: their errors differ."""
    from sklearn.ensemble import VotingRegressor

    return VotingRegressor([("splines", splines(trial)), ("svr", svr(trial))])


def kernel(trial: optuna.Trial):
    """Kernel ridge regression has no intercept: the target is standardized."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    ridge = KernelRidge(
        alpha=trial.suggest_float("kernel_alpha", 0.1, 2, log=True),
        kernel="rbf",
        gamma=trial.suggest_float("kernel_gamma", 2e-3, 0.02, log=True),
    )
    return make_pipeline(StandardScaler(), TransformedTargetRegressor(ridge, transformer=StandardScaler()))


if __name__ == "__main__":
    from shared.flow.tryout import try_out

    try_out(__file__)
