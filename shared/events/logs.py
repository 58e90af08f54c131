"""What a failed flow's log has to say: the message of Evertune's error, or its last lines."""

from __future__ import annotations

import re
from itertools import takewhile

_LINE = re.compile(
    r"^(?:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ )?"  # Metaflow's clock
    r"(?P<task>\[\d+/\w+/\d+ \(pid \d+\)\] ?)?"  # run, step and task
    r"(?P<text>.*?)\s*$"
)
_ERROR = re.compile(r"^shared\.errors\.\w+: ")
_BOILERPLATE = re.compile(
    r"^\s*($|Metaflow \S+ executing|Project: |Validating your flow|The graph looks good|Creating local datastore|"
    r"Workflow (starting|failed)|Task (is starting|finished|failed)|Foreach yields|This failed task|"
    r"Terminating \d+ active|Killing \d+ remaining|Flushing logs|Internal error|Step failure|Step \w+ \(task-id|<flow )"
)


def failure(log: str, lines: int = 20) -> str:
    """The message of the last error that Evertune raised on purpose; without one, the last meaningful lines."""
    parsed = [(match["task"], match["text"]) for match in map(_LINE.match, log.splitlines()) if match]
    raised = [i for i, (_, text) in enumerate(parsed) if _ERROR.match(text)]
    if raised:
        return _message(parsed[raised[-1] :])
    return "\n".join([text for _, text in parsed if not _BOILERPLATE.match(text)][-lines:])


def _message(parsed: list[tuple[str | None, str]]) -> str:
    """The message that begins at the first line; lines of other tasks may stand between its own."""
    task, first = parsed[0]
    own = [text for other, text in parsed[1:] if other == task]
    rest = takewhile(lambda text: not _BOILERPLATE.match(text), own)
    return "\n".join([_ERROR.sub("", first), *rest])
