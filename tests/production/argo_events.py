"""Argo Events as far as Metaflow's Sensors use it: a webhook, filters, the AND of dependencies, and triggers."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from threading import RLock
from typing import Any

from tests.production.argo_placeholders import NotMetaflow, holds
from tests.production.http_server import serving

ENDPOINT = "/metaflow-event"
SOURCE = {"eventSourceName": "argo-events-webhook", "eventName": "evertune"}
ARGUMENT = re.compile(r"spec\.arguments\.parameters\.#\(name=(?P<name>.+)\)\.value")
HTML = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}  # as Go writes JSON

# The two Go templates by which Metaflow maps a field of a payload to a Parameter, the second one for JSONType.
FIELD = re.escape("{{ if (hasKey $.Input.body.payload %s) }}").replace("%s", '"(?P<key>[^"]+)"') + "%s" + re.escape(
    '{{- else -}}{{ (fail "use-default-instead") }}{{- end -}}'
)  # fmt: skip
AS_JSON = re.compile(FIELD % r"\{\{- \(get \$\.Input\.body\.payload \"(?P=key)\" \| toRawJson\) -\}\}")
AS_JSON_TEXT = re.compile(
    FIELD
    % (
        r"\{\{- \$pv:=\(get \$\.Input\.body\.payload \"(?P=key)\"\) -\}\}\{\{ if kindIs \"string\" \$pv \}\}"
        r"\{\{- \$pv \| toRawJson -\}\}\{\{- else -\}\}\{\{ \$pv \| toRawJson \| toRawJson \}\}\{\{- end -\}\}"
    )
)


@dataclass(frozen=True)
class Event:
    """What was posted to the webhook."""

    body: Mapping[str, Any]
    ascii: bool = True  # non-ASCII letters came escaped

    @classmethod
    def parse(cls, posted: bytes) -> Event:
        body = json.loads(posted)
        if not isinstance(body, dict):
            raise TypeError("Argo Events takes JSON objects")
        return cls(body, posted.isascii())

    @property
    def name(self) -> str:
        """Metaflow's; empty: it isn't one of Metaflow's."""
        payload = self.body.get("payload")
        return str(payload.get("name", "")) if isinstance(payload, dict) else ""

    def get(self, path: str) -> Any:
        """What a path like `body.payload.name` leads to.

        Raises:
            KeyError: there is nothing.
        """
        found: Any = {"body": self.body}
        for word in path.split("."):
            if not isinstance(found, dict):
                raise KeyError(path)
            found = found[word]
        return found

    def text(self, path: str) -> str:
        """The same as text, objects as compact JSON."""
        found = self.get(path)
        return found if isinstance(found, str) else _json(found, ascii=self.ascii).translate(HTML)


# Which events are delivered, and in what order, when one was published.
Deliveries = Callable[[Event], Iterable[Event]]


class ArgoEvents:
    """A webhook and the Sensors behind it. sensors: those of the cluster. create: gets each Workflow that is due.

    deliveries: what becomes of a published event; a test puts its own there to lose, repeat, hold back or reorder.
    """

    def __init__(self, sensors: Callable[[], list[dict[str, Any]]], create: Callable[[dict[str, Any]], object]) -> None:
        self.published: list[Event] = []
        self.deliveries: Deliveries = lambda event: [event]
        self._sensors, self._create = sensors, create
        self._waiting: dict[str, dict[str, Event]] = defaultdict(dict)  # by sensor and dependency
        self._lock = RLock()

    @contextmanager
    def serving(self) -> Iterator[str]:
        """The URL to which events are posted."""
        with serving(self._receive) as url:
            yield f"{url}{ENDPOINT}"

    def reset(self) -> None:
        """Forget what was published, what waits and what a test has done to deliveries."""
        with self._lock:
            self.published.clear()
            self._waiting.clear()
            self.deliveries = lambda event: [event]

    def deliver(self, event: Event) -> None:
        """Hand an event to all Sensors, as the event bus does in the end."""
        with self._lock:
            for sensor in self._sensors():
                self._offer(sensor, event)

    def _receive(self, method: str, path: str, posted: bytes) -> tuple[int, Mapping[str, str], bytes]:
        if (method, path) != ("POST", ENDPOINT):
            return 404, {}, b"no such endpoint"
        try:
            event = Event.parse(posted)
        except (ValueError, TypeError) as err:
            return 400, {}, str(err).encode()
        with self._lock:
            self.published.append(event)
            due = [*self.deliveries(event)]
        for one in due:
            self.deliver(one)
        return 200, {}, b"success"

    def _offer(self, sensor: dict[str, Any], event: Event) -> None:
        """A Sensor keeps the newest event of each dependency; with one of each, it fires and begins anew."""
        waiting = self._waiting[sensor["metadata"]["name"]]
        names = {dependency["name"] for dependency in sensor["spec"]["dependencies"]}
        passed = {d["name"]: event for d in sensor["spec"]["dependencies"] if passes(d, event)}
        waiting |= passed
        if passed and waiting.keys() >= names:
            for trigger in sensor["spec"]["triggers"]:
                self._create(workflow(trigger["template"], waiting))
            waiting.clear()


def passes(dependency: Mapping[str, Any], event: Event) -> bool:
    """Whether all of a dependency's filters let an event pass; a field that isn't there lets none pass."""
    if {key: dependency[key] for key in SOURCE} != SOURCE or dependency["filters"].keys() != {"exprs"}:
        raise NotMetaflow(str(dependency))
    try:
        return all(
            holds(expression["expr"], {field["name"]: event.get(field["path"]) for field in expression["fields"]})
            for expression in dependency["filters"]["exprs"]
        )
    except KeyError:
        return False


def workflow(trigger: Mapping[str, Any], events: Mapping[str, Event]) -> dict[str, Any]:
    """The Workflow that a trigger creates, with the events' payloads as its arguments."""
    if trigger.get("conditions") or trigger["k8s"]["operation"] != "create":
        raise NotMetaflow(str(trigger))
    made: dict[str, Any] = deepcopy(trigger["k8s"]["source"]["resource"])
    arguments = {parameter["name"]: parameter for parameter in made["spec"]["arguments"]["parameters"]}
    for parameter in trigger["k8s"]["parameters"]:
        found = ARGUMENT.fullmatch(parameter["dest"])
        if not found:
            raise NotMetaflow(parameter["dest"])
        arguments[found["name"]]["value"] = argument(parameter["src"], events)
    return made


def argument(source: Mapping[str, Any], events: Mapping[str, Event]) -> str:
    """The value of a Workflow's argument: a field of an event, else the default."""
    event = events[source["dependencyName"]]
    try:
        if source.get("dataTemplate"):
            return _templated(source["dataTemplate"], event)
        return event.text(source["dataKey"])
    except KeyError:
        return str(source["value"])


def _templated(template: str, event: Event) -> str:
    plain, twice = AS_JSON.fullmatch(template), AS_JSON_TEXT.fullmatch(template)
    if not (found := plain or twice):
        raise NotMetaflow(template)
    value = event.get("body.payload")[found["key"]]
    text = _json(value)
    return text if plain or isinstance(value, str) else _json(text)


def _json(value: object, *, ascii: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ascii, separators=(",", ":"))
