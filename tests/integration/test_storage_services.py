"""The embedded PostgreSQL as processes meet it: started, shared, killed, copied, stopped; or replaced by another."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import psycopg
import pytest
from optuna.study import StudyDirection

from shared.errors import ServiceError
from shared.settings import settings
from shared.storage import PostgresStorage, database, embedded, schema, services
from shared.storage.leases import Leases
from shared.storage.ledger import Ledger
from shared.storage.postgres import NoRoomError
from tests.conftest import Server, copy_home, remove_home

ASK = "from shared.storage import services; print(services.database_url())"


@pytest.fixture
def bare_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home with nothing in it, and no variable that names a service elsewhere."""
    folder = Path(tempfile.mkdtemp(prefix="evertune-"))
    use(monkeypatch, folder)
    yield folder
    remove_home(folder)
    settings.cache_clear()


@pytest.fixture
def stopped_home(pristine_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home whose server was stopped before any migration."""
    folder = copy_home(pristine_home)
    use(monkeypatch, folder)
    yield folder
    remove_home(folder)
    settings.cache_clear()


def use(monkeypatch: pytest.MonkeyPatch, home: Path, **environment: str) -> None:
    for name in ("EVERTUNE_DATABASE_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"EVERTUNE_HOME": str(home), **environment}.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()


def postmaster(home: Path) -> int:
    return int((home / "postgres" / "postmaster.pid").read_text().split()[0])


def kill_server(home: Path) -> None:
    """`kill -9`, and wait until the server's other processes have noticed."""
    server = psutil.Process(postmaster(home))
    rest = server.children()
    server.kill()
    psutil.wait_procs(rest, timeout=20)


def states() -> list[str]:
    return [status.state for status in services.status()]


def start_process() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-W", "error::RuntimeWarning", "-c", ASK], stdout=-1, stderr=-1, text=True)


def test_processes_that_start_at_once_share_one_server(bare_home: Path) -> None:
    processes = [start_process() for _ in range(3)]
    answers = [process.communicate() for process in processes]
    assert {out.strip() for out, _ in answers} == {f"postgresql://postgres@/evertune?host={bare_home}/postgres"}
    assert [err for _, err in answers] == [""] * 3, "nothing is printed, no warning either"
    assert states() == ["running", "running"]


def test_looking_at_the_services_starts_none(bare_home: Path) -> None:
    assert states() == ["stopped", "stopped"]
    assert list(bare_home.iterdir()) == []


def test_start_stop_and_start_again_keep_what_was_recorded(stopped_home: Path) -> None:
    assert [(s.name, s.state) for s in services.start()] == [("postgres", "running"), ("mlflow", "running")]
    pid = postmaster(stopped_home)
    digest = Ledger().save_source("x = 1")
    assert [s.state for s in services.stop()] == ["stopped", "stopped"]
    assert not (stopped_home / "postgres" / "postmaster.pid").exists()
    assert [s.state for s in services.stop()] == ["stopped", "stopped"], "stopping twice is fine"
    assert Ledger().source(digest) == "x = 1"
    assert postmaster(stopped_home) != pid


def test_a_server_that_was_killed_is_found_again_by_all_who_use_it(stopped_home: Path) -> None:
    import optuna

    storage = PostgresStorage()
    study = optuna.create_study(storage=storage, study_name="s")
    with Leases(storage, study._study_id, budget=2) as leases:
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        kill_server(stopped_home)
        study.tell(trial, 1.0)
        kill_server(stopped_home)
        study.ask()
        with pytest.raises(NoRoomError):
            study.ask()
        assert not leases.is_full()
    assert [t.params for t in study.get_trials()] == [trial.params, {}]
    assert [t.value for t in study.get_trials()] == [1.0, None]
    kill_server(stopped_home)
    out, err = start_process().communicate()
    assert (out.startswith("postgresql://"), err) == (True, "")
    storage.close()


def test_what_a_running_trial_was_told_outlives_a_crash_of_the_server(stopped_home: Path) -> None:
    import optuna

    storage = PostgresStorage()
    study = optuna.create_study(storage=storage, study_name="s")
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    trial.report(0.5, 1)
    storage.flush()  # not durable yet
    other = database.connect()
    os.kill(other.info.backend_pid, signal.SIGKILL)  # for safety the server then ends all its processes, and recovers
    study.tell(trial, 1.0)
    (told,) = study.get_trials()
    assert (told.params, told.intermediate_values, told.values) == (trial.params, {1: 0.5}, [1.0])
    assert postmaster(stopped_home)
    storage.close()


def test_a_server_with_a_backend_that_hangs_stops_all_the_same(
    stopped_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "SHUTDOWNS", ((signal.SIGINT, 0.5), (signal.SIGQUIT, 60.0)))
    services.database_url()
    held = database.connect()
    os.kill(held.info.backend_pid, signal.SIGSTOP)
    assert embedded.stop(stopped_home)
    held.close()
    assert states() == ["stopped", "stopped"]


def test_a_reused_process_number_is_not_taken_for_the_server(stopped_home: Path) -> None:
    services.database_url()
    kill_server(stopped_home)
    pid_file = stopped_home / "postgres" / "postmaster.pid"
    _, *rest = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *rest]) + "\n")
    assert states() == ["stopped", "stopped"]
    services.database_url()
    assert postmaster(stopped_home) != os.getpid()


def test_a_copied_home_has_a_server_of_its_own(stopped_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = copy_home(stopped_home)
    services.database_url()
    for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
        shutil.copy2(stopped_home / "postgres" / name, copy / "postgres" / name)
    use(monkeypatch, copy)
    assert states() == ["stopped", "stopped"]
    services.database_url()
    assert postmaster(copy) != postmaster(stopped_home)
    remove_home(copy)


def test_a_registry_that_stays_on_this_machine_is_told(
    bare_home: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, bare_home)
    here = f"{bare_home}/postgres/mlflow"
    assert services.status()[1].where == here
    use(monkeypatch, bare_home, EVERTUNE_DATABASE_URL=database)
    assert services.status()[1].where == f"{here} (on this machine, since MLFLOW_TRACKING_URI isn't set)"


def test_a_remote_task_starts_no_server_that_is_gone_after_it(
    bare_home: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, bare_home, METAFLOW_RUNTIME_ENVIRONMENT="kubernetes")
    with pytest.raises(ServiceError, match=r"a remote task must .* but EVERTUNE_DATABASE_URL isn't set there; give it"):
        services.database_url()
    use(monkeypatch, bare_home, METAFLOW_RUNTIME_ENVIRONMENT="kubernetes", EVERTUNE_DATABASE_URL=database)
    assert services.database_url() == database
    with pytest.raises(ServiceError, match="but MLFLOW_TRACKING_URI isn't set there"):
        services.mlflow_tracking_uri()
    assert list(bare_home.iterdir()) == []


def test_a_path_too_long_for_a_socket_works(stopped_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = stopped_home / ("long" * 15) / ("longer" * 10)
    deep.mkdir(parents=True)
    (stopped_home / "postgres").rename(deep / "postgres")
    use(monkeypatch, deep)
    with database.connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    kill_server(deep)
    assert states() == ["stopped", "stopped"]
    services.database_url()
    embedded.stop(deep)


def test_a_home_with_a_space_is_refused_with_the_remedy(bare_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, bare_home / "my files")
    with pytest.raises(ServiceError, match=r"spaces or shell characters.*my files'; set EVERTUNE_HOME to a plain path"):
        services.database_url()


def test_a_home_that_cannot_be_written_is_a_clear_error(bare_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bare_home / "file").write_text("")
    use(monkeypatch, bare_home / "file" / "home")
    with pytest.raises(
        ServiceError, match=r"must be a folder that can be written, but .*file/home isn't .*EVERTUNE_HOME"
    ):
        services.database_url()


def test_a_server_that_cannot_start_says_why_and_where_to_look(
    bare_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "START_TIMEOUT_S", 2.0)
    (bare_home / "postgres").mkdir()
    (bare_home / "postgres" / "PG_VERSION").write_text("9\n")
    with pytest.raises(ServiceError, match=r"must start in .*postgres, but doesn't .*EVERTUNE_DATABASE_URL"):
        services.database_url()


def test_with_both_services_elsewhere_nothing_is_started(
    bare_home: Path, server: Server, evertune_template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.fresh(evertune_template) as url:
        use(monkeypatch, bare_home, EVERTUNE_DATABASE_URL=url, MLFLOW_TRACKING_URI="http://user:hunter2@ml:5000")
        assert services.database_url() == url
        assert services.mlflow_tracking_uri() == "http://user:hunter2@ml:5000"
        assert [(s.state, s.where) for s in services.start()] == [
            ("running", database.describe(url)),
            ("external", "http://ml:5000"),
        ]
        services.stop()
        assert states() == ["running", "external"], "what is elsewhere isn't stopped"
    assert list(bare_home.iterdir()) == []


def test_an_unreachable_database_is_named_without_its_password(
    bare_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, bare_home, EVERTUNE_DATABASE_URL="postgresql://ann:hunter2@127.0.0.1:1/tuning")
    with pytest.raises(ServiceError, match=r"must be reachable, but 127\.0\.0\.1:1/tuning isn't") as caught:
        services.database_url()
    assert "check EVERTUNE_DATABASE_URL, or unset it to use the embedded PostgreSQL" in str(caught.value)
    shown = f"{caught.value!r} {caught.getrepr(style='long', showlocals=False)} {settings()!r} {services.status()}"
    assert "hunter2" not in shown.replace('"postgresql://ann:hunter2@127.0.0.1:1/tuning"', "the test's own line")
    assert [s.state for s in services.status()] == ["unreachable", "stopped"]


def test_a_storage_does_not_tell_where_its_database_is(database: str) -> None:
    storage = PostgresStorage()
    shown = f"{vars(storage)!r} {storage!r} {pickle.dumps(storage)!r}"
    storage.close()
    assert database.partition("://")[2] not in shown


def test_a_storage_of_another_database_keeps_its_password_to_itself(database: str) -> None:
    url = database.replace("postgres@", "postgres:correct-horse@")
    storage = PostgresStorage(url)
    copy = pickle.loads(pickle.dumps(storage))
    copy.create_new_study([StudyDirection.MINIMIZE], "s")
    assert "correct" not in f"{vars(storage)!r} {storage!r} {pickle.dumps(storage)!r} {vars(copy)!r}"
    assert storage.get_study_id_from_name("s")


def test_tables_of_a_newer_evertune_are_refused(
    bare_home: Path, server: Server, evertune_template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.fresh(evertune_template) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("UPDATE evertune.alembic_version SET version_num = '9999'")
        use(monkeypatch, bare_home, EVERTUNE_DATABASE_URL=url)
        with pytest.raises(ServiceError, match=rf"revision up to {schema.HEAD}, but are at '9999'.*update Evertune"):
            services.database_url()


@pytest.mark.parametrize("found", ["v2.4.0.a", "v9.9.9.a"])
def test_optuna_tables_of_another_version_are_refused(
    bare_home: Path, server: Server, evertune_template: str, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    with server.fresh(evertune_template) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("UPDATE public.alembic_version SET version_num = %s", [found])
        use(monkeypatch, bare_home, EVERTUNE_DATABASE_URL=url)
        with pytest.raises(
            ServiceError, match=rf"schema v3\.2\.0\.a, but this database has '{found}'.*storage upgrade"
        ):
            PostgresStorage()


def test_a_database_user_called_evertune_gets_optunas_tables_in_public(
    bare_home: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.fresh("template0") as url:
        with psycopg.connect(url, autocommit=True) as connection:
            role = f"evertune_{uuid4().hex[:8]}"
            connection.execute(f"CREATE ROLE {role} SUPERUSER LOGIN")
            connection.execute(f"ALTER ROLE {role} SET search_path TO evertune, public")
        use(monkeypatch, bare_home, EVERTUNE_DATABASE_URL=url.replace("postgres@", f"{role}@"))
        PostgresStorage().close()
        Ledger().begin("s", "digits", "classical", "aaaa", budget=1, run="r")
        with psycopg.connect(url, autocommit=True) as connection:
            optunas = connection.execute("SELECT to_regclass('public.trials'), to_regclass('evertune.trials')")
            assert optunas.fetchone() == ("trials", None)


def test_mlflows_tables_are_created_by_one_of_many(stopped_home: Path) -> None:
    calls: list[str] = []

    def create_tables(uri: str) -> None:
        calls.append(uri)
        time.sleep(0.2)
        with psycopg.connect(uri.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute("CREATE TABLE alembic_version (version_num text)")

    services.start()
    threads = [threading.Thread(target=services.prepare_mlflow, args=(create_tables,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [f"postgresql+psycopg://postgres@/mlflow?host={stopped_home}/postgres"]


def test_a_test_has_a_home_with_services_of_its_own(home: Path) -> None:
    assert states() == ["running", "external"]
    assert settings().home == home
    assert Ledger().datasets("digits") == []
