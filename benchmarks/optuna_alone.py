"""`python -m benchmarks.optuna_alone N`: the iris study by Optuna alone, one process, in memory; prints its seconds."""

import sys
import time

import optuna

from benchmarks.iris_script import objective

if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    begin = time.perf_counter()
    optuna.create_study(direction="maximize").optimize(objective, n_trials=int(sys.argv[1]))
    print(time.perf_counter() - begin)
