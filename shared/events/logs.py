"""What a failed flow's log has to say: the error's own message, or its last lines."""

from __future__ import annotations

import re

_STAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ ")
_TASK = re.compile(r"^\[[^\]]*\(pid \d+\)\] ")
_OWN = re.compile(r"^(?:shared\.errors\.\w+|\w*Error|StudyFailed): (?P<message>.*)$")
_BOILERPLATE = re.compile(
    r"^(Metaflow \S+ executing|Project: |Validating your flow|\s*The graph looks good|Task is starting|Task finished|"
    r"Task failed|Workflow starting|Workflow failed|Terminating \d+ active|Flushing logs|Killing \d+ remaining|"
    r"Step failure|\s*Internal error|\s*Step <|<flow \S+ step|This failed task will not be retried|"
    r"\s*Foreach yields|\s*$)"
)


def failure(log: str, lines: int = 20) -> str:
    """The message of the error that Evertune raised, if the log ends in one; else its last meaningful lines."""
    meaningful = [line for line in map(_plain, log.splitlines()) if not _BOILERPLATE.match(line)]
    return _own_message(meaningful) or "\n".join(meaningful[-lines:])


def _plain(line: str) -> str:
    """A line without Metaflow's time stamp and task."""
    return _TASK.sub("", _STAMP.sub("", line)).rstrip()


def _own_message(lines: list[str]) -> str:
    """The message of the last error of `shared.errors`: its line and those that follow it."""
    starts = [i for i, line in enumerate(lines) if line.startswith("shared.errors.")]
    if not starts:
        return ""
    first, *rest = lines[starts[-1] :]
    return "\n".join([first.split(": ", 1)[-1], *rest])
