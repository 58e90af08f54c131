"""What is shown of a failed flow's log."""

from __future__ import annotations

from optuna.trial import TrialState, create_trial

from shared.domain import StudySpec
from shared.events.logs import failure
from shared.tuning.select import _explain_failure

STAMP = "2026-11-24 06:31:13.418 "
TASK = "[1795501867989490/tune/2 (pid 20814)] "
OTHER = "[1795501867989490/tune/3 (pid 20815)] "


def log(*lines: str) -> str:
    return "\n".join(["Metaflow 2.19.39 executing DataPrepFlow for user:me", *lines, f"{STAMP}Workflow failed.", ""])


def test_the_message_of_evertunes_own_error_is_all_that_is_shown():
    text = log(
        f"{STAMP}{TASK}Traceback (most recent call last):",
        f'{STAMP}{TASK}File "flow.py", line 9, in start',
        f"{STAMP}{TASK}shared.errors.DataError: `target` must be a column, but is 'y';",
        f"{STAMP}{TASK}the columns are a, b",
        f"{STAMP}{TASK}",
        f"{STAMP}{TASK}Task failed.",
    )

    assert failure(text) == "`target` must be a column, but is 'y';\nthe columns are a, b"


def test_a_failed_study_is_shown_from_its_own_first_line_to_its_last():
    error = "KeyError: 'x'\n\nDuring handling of it, another:\n\nshared.errors.ObjectiveError: a rule"
    trial = create_trial(state=TrialState.FAIL, user_attrs={"error": error})
    spec = StudySpec(
        name="toy/classical/0/1", use_case="toy", variant="classical", fingerprint="0", objective_hash="1",
        directions=("maximize",), n_trials=1,
    )  # fmt: skip
    message = _explain_failure(spec, [trial])
    lines = f"shared.errors.StudyFailed: {message}".splitlines()

    assert failure(log(*(f"{STAMP}{TASK}{line}" for line in [*lines, "", "Task failed."]))) == message


def test_lines_of_other_tasks_dont_get_into_a_message():
    text = log(
        f"{STAMP}{TASK}shared.errors.DataError: first line",
        f"{STAMP}{OTHER}trial 7 finished",
        f"{STAMP}{TASK}second line",
        f"{STAMP}{TASK}Task failed.",
        f"{STAMP}{OTHER}trial 8 finished",
    )

    assert failure(text) == "first line\nsecond line"


def test_other_errors_show_the_last_lines_without_metaflows_own():
    text = log(
        *(f"{STAMP}{TASK}line {i}" for i in range(30)),
        f"{STAMP}{TASK}ZeroDivisionError: division by zero",
        f"{STAMP}{TASK}",
        f"{STAMP}{TASK}Task failed.",
    )

    assert failure(text, lines=3) == "line 28\nline 29\nZeroDivisionError: division by zero"


def test_what_a_program_prints_before_metaflow_starts_is_shown():
    assert failure("Traceback (most recent call last):\nModuleNotFoundError: No module named 'x'\n").endswith(
        "named 'x'"
    )
