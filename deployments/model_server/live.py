"""The model that is live: the champion in memory, followed while it moves on. No HTTP here."""

from __future__ import annotations

import gc
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event

import pandas as pd

from deployments.model_server.rows import Columns, parse_json
from shared import model
from shared.domain import ModelVersion
from shared.errors import EvertuneError, UnloadableModelError, UnrecordedModelError
from shared.registry import aliases, client, promotion, pyfunc
from shared.storage import database

logger = logging.getLogger(__name__)

POLL_S = 2.0
OVERDUE_S = 30.0  # after which a look that hasn't ended is trouble; an address that isn't there takes 10
RETRY_S = 60.0  # until a version that was refused is tried again, since its files may have been mended


@dataclass(frozen=True, eq=False)
class Served:
    """A version in memory, ready to predict. example: its input example."""

    version: ModelVersion
    system: model.System
    columns: Columns
    example: pd.DataFrame


def load(version: ModelVersion) -> Served:
    """A version that has predicted its input example. Nothing of it is unpickled or run.

    Raises:
        UnloadableModelError: it can't be loaded, has no input example, or can't predict it.
        RegistryError, ServiceError: its files can't be fetched.
    """
    imported = len(sys.modules)
    try:
        with client.downloaded(version) as folder:
            system = pyfunc.load(folder)
            columns = Columns.of(pyfunc.inputs(folder))
            example = _example(columns, (folder / "input_example.json").read_bytes())
        system.scores(example)
    except (EvertuneError, MemoryError):  # the second says nothing about the version
        raise
    except Exception as err:
        raise UnloadableModelError(f"{version.uri} must load and predict its input example, but {err!r}") from err
    if len(sys.modules) > imported:
        gc.freeze()  # looking through all that is imported takes 200 ms, in which nobody is answered
    return Served(version, system, columns, example)


@dataclass(frozen=True)
class Refusal:
    """A version that isn't let live. at_s: when it was tried, on the clock of who tries."""

    number: int
    why: str
    at_s: float

    def holds(self, number: int, now_s: float) -> bool:
        """Whether this version needn't be tried now."""
        return self.number == number and now_s - self.at_s < RETRY_S


def champion(name: str) -> int | None:
    """The version that should be live.

    Raises:
        RegistryError, ServiceError: the registry can't be reached, or the records, without which no version is loaded.
    """
    database.connect().close()
    return aliases.champion(name)


class LiveModel:
    """The champion of a registered model. Who predicts takes `served` once, and ends with the version it began with.

    find: the number of the version that should be live, None: there is none; load: a version, ready to predict; log:
    called after each version that went live; clock: seconds.
    served: the version that is live; trouble: why it isn't the registry's champion, or may not be; swaps: how often
    another one has taken its place. One thread looks, any number reads.
    """

    def __init__(
        self,
        name: str,
        find: Callable[[str], int | None] = champion,
        load: Callable[[str, int], Served] = lambda name, number: load(client.version(name, number)),
        log: Callable[[str], None] = promotion.log_champion,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.served: Served | None = None
        self.swaps = 0
        self._find, self._load, self._log, self._clock = find, load, log, clock
        self._refused: Refusal | None = None
        self._trouble = "the registry hasn't been asked yet"
        self._looked_s = clock()

    @property
    def trouble(self) -> str:
        return overdue(self._clock() - self._looked_s) or self._trouble

    def look(self) -> None:
        """Ask the registry once, and go on to its champion, if that loads. What fails is said in `trouble`."""
        before = self.served
        try:
            trouble = self._go_on(self._find(self.name))
        except EvertuneError as err:
            trouble = f"the registry doesn't answer: {err}"
        except Exception as err:
            logger.exception("looking for the champion failed", extra={"model": self.name})
            trouble = f"looking for the champion failed: {err!r}"
        if trouble and trouble != self._trouble:
            logger.warning("not following", extra={"model": self.name, "reason": trouble})
        self._trouble, self._looked_s = trouble, self._clock()
        if self.served is not before:
            self._tell()

    def _go_on(self, number: int | None) -> str:
        """Let a version be live; why it can't be, else nothing."""
        if number is None:
            return f"{self.name} has no champion; `evertune run {self.name}` makes one"
        if self.served and self.served.version.version == number:
            return ""
        if self._refused and self._refused.holds(number, self._clock()):
            return self._refused.why
        try:
            fresh = self._load(self.name, number)
        except UnloadableModelError as err:
            why = f"version {number} is not let live: {err}"
            may_be_trusted_yet = isinstance(err, UnrecordedModelError)
            self._refused = None if may_be_trusted_yet else Refusal(number, why, self._clock())
            return why
        self.swaps += self.served is not None
        self.served = fresh
        logger.info("model is live", extra={"model": self.name, "version": number})
        return ""

    def _tell(self) -> None:
        """Tell the log, since somebody may have moved the alias by hand; the version is live in any case."""
        try:
            self._log(self.name)
        except EvertuneError as err:
            logger.warning("promotion not logged", extra={"model": self.name, "reason": str(err)})
        except Exception:
            logger.exception("promotion not logged", extra={"model": self.name})


def overdue(since_s: float) -> str:
    """What is wrong where the last look ended so long ago; nothing, while another one may still be under way."""
    if since_s <= OVERDUE_S:
        return ""
    return f"the registry was last asked {since_s:.0f} s ago: it doesn't answer, or a version takes long to load"


def follow(live: LiveModel, stopped: Event, every_s: float = POLL_S) -> None:
    """Look at once, and then every `every_s` seconds until `stopped` is set."""
    while True:
        live.look()
        if stopped.wait(every_s):
            return


def _example(columns: Columns, content: bytes) -> pd.DataFrame:
    """MLflow's input example, taken as a request's rows are."""
    example = parse_json(content)
    return columns.from_rows(example["columns"], example["data"])
