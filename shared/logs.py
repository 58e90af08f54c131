"""Log records as lines: the event, and what it is about."""

from __future__ import annotations

import logging
import sys

_STANDARD = logging.makeLogRecord({}).__dict__.keys()


class EventFormatter(logging.Formatter):
    """`warm start mapped trial=3 changes='C 50 → 30'`: the message, then the record's `extra` fields."""

    def format(self, record: logging.LogRecord) -> str:
        message, *trace = super().format(record).split("\n")
        about = [f"{key}={value!r}" for key, value in vars(record).items() if key not in (*_STANDARD, "message")]
        return "\n".join([" ".join([message, *about]), *trace])


class _StandardError(logging.Handler):
    """Whatever standard error is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def show_logs(package: str = "shared") -> None:
    """Show what Evertune logs on standard error, from INFO on; for a process that runs a step, a worker or an app."""
    logger = logging.getLogger(package)
    if not logger.handlers:
        handler = _StandardError()
        handler.setFormatter(EventFormatter())
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
