"""All at once: while a champion is asked all the time, data grows, the chain retunes, and a better one goes live."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import requests
from sklearn.linear_model import LogisticRegression

from shared.config import UseCase, load_use_case
from shared.domain import PromotionDecision
from shared.model import Member, Signature, System, save
from shared.registry import aliases, client, promotion
from shared.storage.ledger import Ledger
from tests.flows.conftest import ROOT, Command, checkout, evertune
from tests.on_record import prepare_rows
from tests.production.test_model_server import free_port, serve, until

__all__ = ["checkout", "evertune"]

CONFIG = """
name = "season"
title = "What sells in a season"
[data]
source = "csv:{folder}/*.csv"
target = "sold"
holdout = 0.3
[tuning]
metric = "neg_log_loss"
folds = 2
[classical]
objective = "objectives/season.py"
n_trials = 2
workers = 1
[system]
n_trials = 2
[retune]
warm_trials = 2
[promotion]
"""

OBJECTIVE = """
from sklearn.linear_model import LogisticRegression

def build(trial):
    return LogisticRegression(C=trial.suggest_float("C", 0.1, 10, log=True))
"""

ASKED = {"columns": ["warm", "wet"], "rows": [[2.0, -2.0], [-2.0, 2.0]]}


def season(n: int, sells: str) -> pd.DataFrame:
    """Rows of a season in which one of the columns says what sells."""
    rows = pd.DataFrame(np.random.default_rng(n).normal(size=(n, 2)), columns=ASKED["columns"])
    return rows.assign(sold=(rows[sells] > 0).astype(int))


def promote_one_of(rows: pd.DataFrame, use_case: UseCase) -> None:
    """A champion that knows this season, whose rows are the first dataset version."""
    prepare_rows(use_case)
    (dataset,) = Ledger().datasets("season")
    X = rows[ASKED["columns"]]
    system = System(Signature(tuple(X), (2,), (0, 1)), [Member("classical", LogisticRegression().fit(X, rows["sold"]))])
    facts = {"use_case": "season", "metrics": {}, "params": {}, "lineage": {"dataset": dataset.fingerprint}}
    version = client.register("season", save(system), example=X[:2], predictions=system.predict(X[:2]), **facts)
    decision = PromotionDecision(promote=True, reason="it is the first one")
    promotion.promote("season", version.version, decision, seen=None, actor="tester", kind="hand")


class Client(threading.Thread):
    """Asks all the time. answers: status and answer of each request, in order; 0 and the error where there is none."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.answers: list[tuple[int, Any]] = []
        self.over = threading.Event()
        self._url = url

    def run(self) -> None:
        with requests.Session() as session:
            while not self.over.wait(0.05):
                try:
                    answer = session.post(self._url, json=ASKED, timeout=60)
                    self.answers.append((answer.status_code, answer.json()))
                except requests.RequestException as err:
                    self.answers.append((0, repr(err)))

    @property
    def versions(self) -> list[int]:
        """Those that have answered, each time that it was another one."""
        versions = [answer["version"] for status, answer in self.answers if status == 200]
        return [version for version, before in zip(versions, [0, *versions], strict=False) if version != before]


@contextmanager
def asked_all_the_time(url: str) -> Iterator[list[Client]]:
    """Two clients at work."""
    clients = [Client(url) for _ in range(2)]
    for each in clients:
        each.start()
    try:
        yield clients
    finally:
        for each in clients:
            each.over.set()
        for each in clients:
            each.join()


def test_a_champion_is_retuned_replaced_and_rolled_back_under_load_without_a_failed_request(
    checkout: Path, evertune: Command, tmp_path: Path
) -> None:
    sales = tmp_path / "sales"
    sales.mkdir()
    shutil.copytree(ROOT / "deployments", checkout / "deployments")
    config = checkout / "configs" / "season.toml"
    config.write_text(CONFIG.format(folder=sales))
    (checkout / "flows" / "classical_hpo" / "objectives" / "season.py").write_text(OBJECTIVE)
    summer, winter = season(120, sells="warm"), season(600, sells="wet")
    summer.to_csv(sales / "summer.csv", index=False)
    promote_one_of(summer, load_use_case(config))
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with serve("season", "--port", str(port), output=tmp_path / "output", cwd=checkout):
        until(lambda: requests.get(f"{address}/readyz").ok)
        with asked_all_the_time(f"{address}/predict") as clients:
            until(lambda: all(each.versions == [1] for each in clients))
            winter.to_csv(sales / "winter.csv", index=False)
            print(evertune("run", "season", cwd=checkout).stdout)  # shown where the test fails
            until(lambda: all(each.versions == [1, 2] for each in clients))
            evertune("models", "rollback", "season", cwd=checkout)
            until(lambda: all(each.versions == [1, 2, 1] for each in clients))
            time.sleep(0.5)
    answers = [answer for each in clients for answer in each.answers]
    assert [answer for status, answer in answers if status != 200] == []
    assert [each.versions for each in clients] == [[1, 2, 1]] * 2
    said = {answer["version"]: answer["predictions"] for _, answer in answers}
    assert said == {1: [1, 0], 2: [0, 1]}
    assert aliases.champion("season") == 1
    assert [(p.version, p.kind, p.promoted) for p in Ledger().promotions("season")] == [
        (1, "hand", True),
        (2, "gate", True),
        (1, "rollback", True),
    ]
