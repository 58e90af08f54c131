"""Promotions whose process is killed, that meet another one, or moves by hand: one champion, and the log knows it."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from mlflow import MlflowClient

from shared.domain import PromotionDecision
from shared.errors import RegistryError
from shared.registry import aliases, history
from shared.registry.promotion import ELSEWHERE, log_champion, promote, rollback
from shared.registry.verify import agreement
from shared.storage.ledger import Ledger, Promotion
from shared.storage.services import mlflow_tracking_uri

YES = PromotionDecision(promote=True, reason="better")
NO = PromotionDecision(promote=False, reason="worse")
RACES, HISTORIES = 3, 8  # each time
# A model, what is done to it, which versions may be champion after that was killed, and who does it.
Scene = tuple[str, Callable[[], object], set[int], str]
numbers = itertools.count()


@pytest.fixture
def mlflow(home) -> MlflowClient:
    del home
    return MlflowClient(mlflow_tracking_uri(), mlflow_tracking_uri())


def model(mlflow: MlflowClient, versions: int = 3) -> str:
    """A registered model of its own, with versions that have no files."""
    name = f"toy{next(numbers)}"
    mlflow.create_registered_model(name)
    for _ in range(versions):
        mlflow.create_model_version(name, "/nowhere")
    return name


def promoted(mlflow: MlflowClient, *versions: int) -> str:
    """A model whose versions were promoted one after the other."""
    name = model(mlflow)
    for seen, version in itertools.pairwise((None, *versions)):
        promote(name, version, YES, seen=seen, actor="gate")
    return name


class Killed(BaseException):
    """No clean-up answers to it, as none would to a SIGKILL."""


@contextmanager
def dying(at: int, die: Callable[[], None]) -> Iterator[None]:
    """`die` is called before the statement of that number that writes something, or deletes it; from 0."""
    execute, writes = psycopg.Cursor.execute, itertools.count()

    def counted(cursor, query, *args, **options):
        if str(query).split()[0] in ("INSERT", "DELETE") and next(writes) == at:
            die()
        return execute(cursor, query, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", counted)
        yield


def start(work: Callable[[], object], kill_at: int = -1) -> tuple[int, int]:
    """Run it in a process of its own, which is killed before it writes so often; its id, and where it says why not."""
    read, write = os.pipe()
    if pid := os.fork():
        os.close(write)
        return pid, read
    said = "it raised"
    try:
        with dying(kill_at, lambda: os.kill(os.getpid(), signal.SIGKILL)):
            work()
        said = ""
    except RegistryError as err:
        said = str(err)
    finally:
        os.write(write, said.encode())
        os._exit(0)


def end(pid: int, read: int) -> tuple[int, str]:
    """The signal that has killed a process, and what it was refused for."""
    with os.fdopen(read) as pipe:
        said = pipe.read()
    return os.WTERMSIG(os.waitpid(pid, 0)[1]), said


def begin_promotion(mlflow: MlflowClient) -> Scene:
    name = promoted(mlflow, 1)
    return name, lambda: promote(name, 2, YES, seen=1, actor="SystemTuneFlow/2"), {1, 2}, "SystemTuneFlow/2"


def begin_first_promotion(mlflow: MlflowClient) -> Scene:
    name = model(mlflow)
    return name, lambda: promote(name, 1, YES, seen=None, actor="SystemTuneFlow/1"), {1}, "SystemTuneFlow/1"


def begin_rollback(mlflow: MlflowClient) -> Scene:
    name = promoted(mlflow, 1, 2, 3)
    return name, lambda: rollback(name, actor="ann"), {3, 2}, "ann"


def begin_to_notice_a_move_by_hand(mlflow: MlflowClient) -> Scene:
    name = promoted(mlflow, 1, 2)
    mlflow.set_registered_model_alias(name, "champion", "3")
    return name, lambda: log_champion(name), {3}, ELSEWHERE


@pytest.mark.parametrize(
    "begin", [begin_promotion, begin_first_promotion, begin_rollback, begin_to_notice_a_move_by_hand]
)
def test_killed_between_any_two_writes_it_leaves_one_champion_that_log_and_registry_agree_on(mlflow, begin):
    for writes in itertools.count():
        name, work, possible, actor = begin(mlflow)
        before = Ledger().promotions(name)
        signum, refused = end(*start(work, kill_at=writes))
        left = Ledger().promotions(name)

        findings = list(agreement(name))

        assert not [finding.text for finding in findings if finding.wrong]
        check(name)
        log, at = Ledger().promotions(name), aliases.of(name)
        assert log[: len(left)] == left or history.pending(left), "nothing is lost"
        assert at.get("champion") in possible | ({None} if not before else set())
        assert {entry.actor for entry in log} <= {entry.actor for entry in before} | {actor}, "who decided is known"
        if len(left) > len(before):
            assert at["champion"] == left[-1].version, "what was decided is carried out"
        if history.pending(left):
            assert "was interrupted: carried out now" in findings[0].text
        if signum == 0:
            break
        assert signum == signal.SIGKILL
    assert not refused
    assert writes >= 2


def check(name: str) -> None:
    """Log and registry say the same, and each gate decided once."""
    log, at = Ledger().promotions(name), aliases.of(name)
    assert not history.pending(log)
    assert at.get("champion") in (history.champion(log), None)
    assert at.get("previous") in (*history.before(log, at.get("champion")), None)
    decided = [entry.version for entry in log if entry.kind == "gate"]
    assert len(decided) == len(set(decided))


@pytest.mark.usefixtures("repetition")
def test_of_two_processes_that_promote_at_once_one_wins_and_the_other_is_told_why(mlflow):
    for _ in range(RACES):
        name, (read, write) = promoted(mlflow, 1), os.pipe()

        def attempt(version: int, name: str = name, read: int = read) -> None:
            os.read(read, 1)  # until both are there
            promote(name, version, YES, seen=1, actor=f"SystemTuneFlow/{version}")

        racing = [start(lambda version=version: attempt(version)) for version in (2, 3)]
        os.write(write, b"go")
        outcomes = [refused for _, refused in (end(*process) for process in racing)]
        os.close(read)
        os.close(write)
        winner = 2 + outcomes.index("")
        (told,) = [refused for refused in outcomes if refused]
        assert f"was compared with version 1, but the champion is version {winner} by now" in told
        assert f"moved by SystemTuneFlow/{winner};" in told
        assert aliases.of(name) == {"champion": winner, "previous": 1}
        assert [(p.version, p.outcome) for p in Ledger().promotions(name)] == [(1, "moved"), (winner, "moved")]


class Promotions(RuleBasedStateMachine):
    """Gates, rollbacks and moves by hand in any order, each of which may die anywhere."""

    mlflow: MlflowClient

    def __init__(self) -> None:
        super().__init__()
        self.name = model(self.mlflow, versions=5)
        self.log: list[Promotion] = []

    @rule(version=st.integers(1, 5), decision=st.sampled_from([YES, NO]), at=st.integers(0, 6))
    def gate(self, version: int, decision: PromotionDecision, at: int) -> None:
        self.dying(at, lambda: promote(self.name, version, decision, seen=self.live, actor="gate"))

    @rule(to=st.none() | st.integers(1, 5), at=st.integers(0, 6))
    def roll_back(self, to: int | None, at: int) -> None:
        self.dying(at, lambda: rollback(self.name, to, actor="ann"))

    @rule(version=st.integers(1, 5))
    def move_by_hand(self, version: int) -> None:
        self.mlflow.set_registered_model_alias(self.name, "champion", str(version))

    @rule()
    def take_away_by_hand(self) -> None:
        self.mlflow.delete_registered_model_alias(self.name, "champion")

    @rule()
    def look(self) -> None:
        live, pending = self.live, history.pending(Ledger().promotions(self.name))
        log_champion(self.name)
        assert self.live == live or pending, "looking moves nothing"
        check(self.name)

    @invariant()
    def what_is_logged_stays(self) -> None:
        log = Ledger().promotions(self.name)
        assert [entry.id for entry in log][: len(self.log)] == [entry.id for entry in self.log]
        self.log = log

    @property
    def live(self) -> int | None:
        return aliases.champion(self.name)

    def dying(self, at: int, work: Callable[[], object]) -> None:
        def die() -> None:
            raise Killed

        with suppress(RegistryError, Killed), dying(at, die):
            work()

    def teardown(self) -> None:
        log_champion(self.name)
        check(self.name)


@pytest.mark.usefixtures("repetition")
def test_in_any_history_of_gates_rollbacks_moves_by_hand_and_crashes_log_and_registry_agree(mlflow):
    machine = type("Machine", (Promotions,), {"mlflow": mlflow})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=HISTORIES, stateful_step_count=15, deadline=None, database=None, print_blob=True,
            suppress_health_check=[*HealthCheck], phases=[Phase.generate],
        ),
    )  # fmt: skip
