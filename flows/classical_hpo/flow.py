"""Search the hyperparameters of classical models (anything with scikit-learn's interface) on a dataset version."""

from pathlib import Path

from metaflow import Config, trigger_on_finish
from obproject import ProjectFlow

from shared.flow.compute import compute
from shared.flow.environment import prepare_environment
from shared.flow.hpo_steps import HPOSteps
from shared.flow.run import PARSER

DIGITS = Path(__file__).parent / "../../configs/digits.toml"


@trigger_on_finish(flow="DataPrepFlow")
@compute("classical")
class ClassicalHPOFlow(HPOSteps, ProjectFlow):
    """plan → tune (one task per worker, many trials each) → select → retrain and register."""

    use_case = Config("use_case", default=str(DIGITS), parser=PARSER)
    variant = "classical"


if __name__ == "__main__":
    prepare_environment()
    ClassicalHPOFlow()
