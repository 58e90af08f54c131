"""Make a dataset version of what a source holds now: `python flows/data_prep/flow.py run`, from the project's root."""

from pathlib import Path

from metaflow import Config, Parameter, config_expr, namespaced_event_name, schedule, trigger
from obproject import ProjectFlow

from shared.flow.compute import compute
from shared.flow.data_steps import DataSteps
from shared.flow.environment import prepare_environment
from shared.flow.payload import unmapped
from shared.flow.run import PARSER, REQUEST_HELP

DIGITS = Path(__file__).parent / "../../configs/digits.toml"


@trigger(event=namespaced_event_name("new_data"))
@schedule(cron=config_expr("use_case.schedule.cron"), timezone=config_expr("use_case.schedule.timezone"))
@unmapped
@compute("data")
class DataPrepFlow(DataSteps, ProjectFlow):
    """start → prepare (read, check, split, store) → end (a card of the rows and of what changed)."""

    use_case = Config("use_case", default=str(DIGITS), parser=PARSER)
    request = Parameter("request", default="", type=str, help=REQUEST_HELP)


if __name__ == "__main__":
    prepare_environment()
    DataPrepFlow()
