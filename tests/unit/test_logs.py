"""Log lines say the event and what it is about."""

from __future__ import annotations

import logging
import subprocess
import sys

from shared.logs import EventFormatter

SHOWN = """
import logging
from shared.logs import show_logs
show_logs()
show_logs()
logging.getLogger("shared.tuning.transfer").info("warm start mapped", extra={"trial": 3, "changes": "C 50 → 30"})
logging.getLogger("shared.tuning.worker").debug("trial ended", extra={"trial": 3})
"""


def test_a_record_s_fields_follow_its_message_and_a_traceback_them() -> None:
    record = logging.makeLogRecord({"msg": "trial failed", "trial": 3, "cause": "raised"})
    assert EventFormatter().format(record) == "trial failed trial=3 cause='raised'"
    record.exc_text = "Traceback:\n  in line 1"
    assert EventFormatter().format(record).splitlines() == [
        "trial failed trial=3 cause='raised'", "Traceback:", "  in line 1"
    ]  # fmt: skip


def test_a_process_that_shows_its_log_writes_each_event_once() -> None:
    done = subprocess.run([sys.executable, "-c", SHOWN], capture_output=True, text=True, check=True)
    assert done.stderr == "warm start mapped trial=3 changes='C 50 → 30'\n"
