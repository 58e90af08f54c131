"""What a study takes over from earlier ones: warm starts first, then trials of theirs as far as their ranking holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from shared.domain import EarlierStudy, StrategySpec, StudySpec, TrialSummary
from shared.tuning.earlier import (
    MOST_JUDGED,
    Source,
    kendall,
    ranking_holds,
    scored,
    sources,
    transfers,
    values_of,
    warm_starts,
)
from shared.tuning.mapping import changed
from shared.tuning.study import open_study
from shared.tuning.transfer import TransferSampler

Evaluate = Callable[[optuna.Trial], float]


def spec(name: str = "new", n_trials: int = 20, **changes: Any) -> StudySpec:
    values: dict[str, Any] = {
        "name": name, "use_case": "toy", "variant": "classical", "fingerprint": name, "objective_hash": "1",
        "directions": ("maximize",), "n_trials": n_trials, "sampler": StrategySpec(name="TPESampler"),
    }  # fmt: skip
    return StudySpec(**values | changes)


def old(same_objective: bool = True, top: tuple[TrialSummary, ...] = ()) -> dict[str, Any]:
    return {"earlier": (EarlierStudy(study="old", fingerprint="old", same_objective=same_objective, top=top),)}


def tune(study_spec: StudySpec, evaluate: Evaluate, storage: InMemoryStorage) -> optuna.Study:
    study = open_study(study_spec, storage)
    if isinstance(study.sampler, TransferSampler):
        study.sampler.enqueue(study)
    study.optimize(evaluate, n_trials=study_spec.n_trials)
    return study


def bowl(trial: optuna.Trial) -> float:
    x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
    return -((x - 0.3) ** 2) - (y - 0.6) ** 2


def turned(trial: optuna.Trial) -> float:
    return -bowl(trial)


@pytest.fixture
def storage() -> InMemoryStorage:
    """Has a study `old` of the bowl."""
    storage = InMemoryStorage()
    tune(spec("old"), bowl, storage)
    return storage


def is_warm(trial: FrozenTrial) -> bool:
    return "warm_start" in trial.user_attrs


def changes(trial: FrozenTrial) -> str:
    return changed(trial.user_attrs["warm_start"]["params"], trial.params) if is_warm(trial) else ""


@pytest.mark.parametrize(
    ("a", "b", "tau"),
    [([1, 2, 3], [10, 20, 30], 1), ([1, 2, 3], [3, 2, 1], -1), ([1, 2, 3], [1, 3, 2], 1 / 3), ([1, 2], [5, 5], 0)],
)
def test_kendalls_tau_counts_the_pairs_in_the_same_order(a: list[float], b: list[float], tau: float) -> None:
    assert kendall(np.array(a), np.array(b)) == pytest.approx(tau)


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=30))
def test_how_well_a_ranking_holds_is_between_zero_and_one(pairs: list[tuple[float, float]]) -> None:
    expected, actual = np.array(pairs).T[:, :, None]
    assert 0 <= ranking_holds(expected, actual) <= 1
    assert ranking_holds(expected, -expected) == 0


def test_a_ranking_of_two_trials_says_nothing_and_one_of_many_nearly_all() -> None:
    two, many = np.arange(2.0)[:, None], np.arange(100.0)[:, None]
    assert ranking_holds(two, two) == 0
    assert ranking_holds(many, many) > 0.9


def test_of_several_directions_the_one_that_holds_least_counts() -> None:
    both = np.stack([np.arange(20.0), np.arange(20.0)], axis=1)
    assert ranking_holds(both, both) > 0.8
    assert ranking_holds(both, both * [1, -1]) == 0


def test_the_best_distinct_configurations_come_first_and_others_are_drawn_between_them(
    storage: InMemoryStorage,
) -> None:
    study = tune(spec(**old()), bowl, storage)
    assert [is_warm(trial) for trial in study.trials[:6]] == [True, False, True, False, True, False]
    earlier = open_study(spec("old"), storage)
    assert study.trials[0].params == earlier.best_trial.params
    assert study.trials[0].user_attrs["warm_start"] == {
        "study": "old", "trial": earlier.best_trial.number, "params": earlier.best_trial.params,
    }  # fmt: skip
    assert not any(map(changes, study.trials))


def test_warm_starts_are_enqueued_once_and_within_the_budget(storage: InMemoryStorage) -> None:
    small = open_study(spec(n_trials=2, **old()), storage)
    for _ in range(2):
        small.sampler.enqueue(small)  # type: ignore[attr-defined]
    assert sum(map(is_warm, small.trials)) == 1
    larger = open_study(spec(**old()), storage)
    for _ in range(2):
        larger.sampler.enqueue(larger)  # type: ignore[attr-defined]
    assert sum(map(is_warm, larger.trials)) == 3


def test_no_earlier_trial_is_written_into_the_study(storage: InMemoryStorage) -> None:
    study = tune(spec(**old()), bowl, storage)
    assert [trial.number for trial in study.trials] == list(range(20))
    assert study.user_attrs["evertune"].keys().isdisjoint({"earlier", "warm_starts"})


def test_related_data_lets_the_sampler_see_earlier_trials_and_it_ends_better(storage: InMemoryStorage) -> None:
    study = tune(spec(n_trials=8, **old()), bowl, storage)
    (found,) = transfers(spec(**old()), storage, study.trials)
    assert (found.study, found.trials) == ("old", 20)
    assert found.weight > 0.3
    seen = study.sampler._seen(study, study.ask()._get_latest_trial())  # type: ignore[attr-defined]
    shown = [trial for trial in seen.trials if trial.number < 0]
    assert 0 < len(shown) <= 20
    assert seen.trials[-1].number == 8
    assert study.best_value >= open_study(spec("old"), storage).best_value


def test_pruned_trials_tell_how_well_the_ranking_holds(storage: InMemoryStorage) -> None:
    def pruned(trial: optuna.Trial) -> float:
        trial.report(bowl(trial), 0)
        if trial.number > 2:
            raise optuna.TrialPruned
        return bowl(trial)

    study = tune(spec(**old()), pruned, storage)
    complete = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    all_of_them, without = (transfers(spec(**old()), storage, t)[0].weight for t in (study.trials, complete))
    assert all_of_them not in (0, without)


def slope(x: float, number: int = 0, *, given_up: bool = False, level: float = 0.0) -> FrozenTrial:
    """A trial of value `level + x`, whose first report is 0.4 below."""
    reports = {0: level + x - 0.4} if given_up else {0: level + x - 0.4, 1: level + x}
    state = TrialState.PRUNED if given_up else TrialState.COMPLETE
    space = {"x": FloatDistribution(0, 1)}
    trial = create_trial(
        state=state, value=reports[max(reports)], params={"x": x}, distributions=space, intermediate_values=reports
    )
    trial.number = number
    return trial


def slopes(n: int, n_given_up: int, level: float = 0.0) -> list[FrozenTrial]:
    return [slope(x, i, given_up=i < n_given_up, level=level) for i, x in enumerate(np.linspace(0, 1, n))]


def test_a_pruned_trial_is_judged_by_its_last_report_and_what_complete_ones_gained_after_it() -> None:
    assert values_of(scored(slopes(10, 7), 1)).ravel() == pytest.approx(np.linspace(0, 1, 10))
    assert values_of(scored(slopes(10, 10), 1)).ravel() == pytest.approx(np.linspace(0, 1, 10) - 0.4), "none complete"


def test_own_pruned_trials_dont_move_the_level_of_earlier_ones() -> None:
    source = Source(old()["earlier"][0], slopes(20, 0)[::-1])
    own = slopes(20, 14, level=5.0)
    shown = source.shared(scored(own, 1), own[0].distributions)
    assert [trial.value - trial.params["x"] for trial in shown] == pytest.approx([5.0] * len(shown))
    assert len(shown) > 10


def test_trials_that_an_earlier_study_pruned_are_shared_as_what_they_would_have_come_to() -> None:
    storage = InMemoryStorage()
    open_study(spec("old"), storage).add_trials(slopes(20, 14))
    (source,) = sources(spec(**old()), storage)
    assert [trial.values[0] for trial in source.trials] == pytest.approx([trial.params["x"] for trial in source.trials])


def test_of_very_many_trials_the_newest_are_judged_and_of_the_earlier_ones_some_of_each_rank() -> None:
    storage = InMemoryStorage()
    open_study(spec("old"), storage).add_trials(slopes(3 * MOST_JUDGED, 0))
    (source,) = sources(spec(**old()), storage)
    judged = [trial.values[0] for trial in source._judged]
    assert len(source.trials) == 3 * MOST_JUDGED
    assert (len(judged), judged[0], judged[-1]) == (MOST_JUDGED, 1.0, 0.0)
    own = scored(slopes(2 * MOST_JUDGED, 0), 1)
    assert [trial.number for trial in own] == list(range(MOST_JUDGED, 2 * MOST_JUDGED))
    assert source.weight(own) > 0.9


def test_what_an_earlier_study_gave_up_is_known_as_bad_and_isnt_run_again(storage: InMemoryStorage) -> None:
    def gives_up_the_bad(trial: optuna.Trial) -> float:
        value = bowl(trial)
        trial.report(value, 0)
        if trial.number > 1 and value < max(t.value for t in trial.study.trials if t.value is not None):
            raise optuna.TrialPruned
        return value

    study = tune(spec("first", 30), gives_up_the_bad, storage)
    found = sources(spec(earlier=(EarlierStudy(study="first", fingerprint="f", same_objective=True, top=()),)), storage)
    n_complete = sum(trial.state == TrialState.COMPLETE for trial in study.trials)
    (source,) = found
    assert n_complete < 10
    assert [t.state == TrialState.COMPLETE for t in source.trials] == [True] * n_complete + [False] * (30 - n_complete)
    assert {start["trial"] for start in warm_starts(found)} <= {trial.number for trial in source.trials[:n_complete]}
    shown = source.shared(scored(study.trials, 1), {})
    assert min(trial.values[0] for trial in shown) < source.trials[n_complete - 1].values[0]
    assert {trial.state for trial in shown} == {TrialState.COMPLETE}


def test_a_pruned_trial_of_several_directions_tells_nothing(storage: InMemoryStorage) -> None:
    def pruned(trial: optuna.Trial) -> tuple[float, float]:
        trial.report(bowl(trial), 0)
        if trial.number % 3 == 2:
            raise optuna.TrialPruned
        return bowl(trial), turned(trial)

    several = {"directions": ("maximize", "minimize"), "metrics": ("a", "b"), "guard": "a"}
    tune(spec("first", 12, **several), pruned, storage)
    earlier = {"earlier": (EarlierStudy(study="first", fingerprint="f", same_objective=True, top=()),)}
    study = tune(spec("second", 15, **several, **earlier), pruned, storage)
    complete = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    all_of_them, without = (
        transfers(spec("second", **several, **earlier), storage, t)[0].weight for t in (study.trials, complete)
    )
    assert all_of_them == without


def test_where_the_ranking_is_turned_around_the_sampler_is_on_its_own(storage: InMemoryStorage) -> None:
    study = tune(spec(**old()), turned, storage)
    (found,) = transfers(spec(**old()), storage, study.trials)
    assert found.weight == 0
    trial = study.ask()._get_latest_trial()
    assert study.sampler._seen(study, trial) is study  # type: ignore[attr-defined]


def test_earlier_values_are_moved_to_the_level_of_the_new_data(storage: InMemoryStorage) -> None:
    study = tune(spec(n_trials=9, **old()), lambda trial: bowl(trial) + 100, storage)
    seen = study.sampler._seen(study, study.ask()._get_latest_trial())  # type: ignore[attr-defined]
    shown = [trial.value for trial in seen.trials if trial.number < 0]
    assert shown
    assert all(98 < value < 102 for value in shown)


def test_a_sampler_that_counts_its_own_trials_sees_no_others(storage: InMemoryStorage) -> None:
    grid = StrategySpec(name="GridSampler", options={"search_space": {"x": [0.1, 0.3], "y": [0.2, 0.6]}})
    study = tune(spec(n_trials=9, sampler=grid, **old()), bowl, storage)
    assert [is_warm(trial) for trial in study.trials[:4]] == [True, True, True, False]
    on_grid = {tuple(trial.params.values()) for trial in study.trials[3:]}
    assert len(on_grid) == 4


def test_a_gaussian_process_sees_them_too(storage: InMemoryStorage) -> None:
    pytest.importorskip("torch")
    study = tune(spec(n_trials=9, sampler=StrategySpec(name="GPSampler"), **old()), bowl, storage)
    assert study.best_value >= open_study(spec("old"), storage).best_value


def edited(trial: optuna.Trial) -> float:
    """The bowl with a moved range and a new parameter, without `y`."""
    return -((trial.suggest_float("x", 0.5, 1) - 0.3) ** 2) - trial.suggest_float("z", 0, 1)


def test_an_edited_objective_gets_what_still_fits(storage: InMemoryStorage) -> None:
    study = tune(spec(**old(same_objective=False)), edited, storage)
    first = study.trials[0]
    assert first.params["x"] == 0.5
    before = first.user_attrs["warm_start"]["params"]["x"]
    assert changes(first) == f"x {before:.4g} → 0.5, z = {first.params['z']:.4g} is new, y is gone"
    seen = study.sampler._seen(study, study.ask()._get_latest_trial())  # type: ignore[attr-defined]
    assert all(trial.number >= 0 for trial in seen.trials), "what has a parameter that is gone is another space"


def test_a_choice_that_is_gone_is_drawn() -> None:
    storage = InMemoryStorage()
    tune(spec("old"), lambda t: t.suggest_categorical("k", ["a", "b"]) == "a", storage)
    study = tune(spec(**old(same_objective=False)), lambda t: t.suggest_categorical("k", ["b", "c"]) == "b", storage)
    assert {trial.params["k"] for trial in study.trials} == {"b", "c"}
    assert changes(study.trials[0]).startswith("k a → ")


def test_of_a_deleted_study_only_what_the_ledger_has_remains() -> None:
    top = (
        TrialSummary(number=7, values=(0.9,), params={"x": 0.3, "y": 0.6}),
        TrialSummary(number=3, values=(0.8,), params={"x": 0.3, "y": 0.6}),
        TrialSummary(number=1, values=(0.7,), params={"x": 0.4, "y": 0.1}),
    )
    storage = InMemoryStorage()
    study = tune(spec(**old(top=top)), bowl, storage)
    warm = [trial for trial in study.trials if is_warm(trial)]
    assert [trial.user_attrs["warm_start"]["trial"] for trial in warm] == [7, 1]
    assert [trial.params for trial in warm] == [top[0].params, top[2].params]
    assert transfers(spec(**old(top=top)), storage, study.trials)[0].trials == 0


@pytest.mark.parametrize("lost", [float("nan"), float("inf"), float("-inf")])
def test_what_the_ledger_has_without_a_finite_value_is_left_out(lost: float) -> None:
    values = ((lost,), (0.8,))
    top = tuple(TrialSummary(number=i, values=v, params={"x": 0.1 + i / 2, "y": 0.6}) for i, v in enumerate(values))
    storage = InMemoryStorage()
    study = tune(spec(**old(top=top)), bowl, storage)
    assert [t.user_attrs["warm_start"]["trial"] for t in study.trials if is_warm(t)] == [1]
    none = spec("other", **old(top=top[:1]))
    assert transfers(none, storage, tune(none, bowl, storage).trials)[0].weight == 0


def test_an_infeasible_trial_is_no_better_a_warm_start_for_its_value() -> None:
    def constrained(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        trial.set_constraint("small", x - 0.5)
        return x

    storage = InMemoryStorage()
    tune(spec("old"), constrained, storage)
    study = tune(spec(n_trials=1, **old()), constrained, storage)
    assert study.trials[0].params["x"] <= 0.5


def test_a_study_learns_from_several_earlier_ones_the_nearest_first() -> None:
    storage = InMemoryStorage()
    tune(spec("old"), bowl, storage)
    tune(spec("older"), bowl, storage)
    both = tuple(EarlierStudy(study=s, fingerprint=s, same_objective=True, top=()) for s in ("old", "older"))
    study = tune(spec(n_trials=12, earlier=both), bowl, storage)
    warm = [trial.user_attrs["warm_start"]["study"] for trial in study.trials if is_warm(trial)]
    assert warm[0] == "old"
    found = transfers(spec(earlier=both), storage, study.trials)
    assert [(t.study, t.trials) for t in found] == [("old", 20), ("older", 20)]
    assert all(t.state == TrialState.COMPLETE for t in study.trials)
    assert len(sources(spec(earlier=both), storage)) == 2


def deeper(trial: optuna.Trial) -> float:
    return bowl(trial) - trial.suggest_float("z", 0, 1) ** 2


def test_a_gaussian_process_sees_of_an_edited_objective_what_has_all_parameters(storage: InMemoryStorage) -> None:
    study = tune(
        spec(n_trials=14, sampler=StrategySpec(name="GPSampler"), **old(same_objective=False)), deeper, storage
    )
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}


def test_a_constraint_that_is_new_leaves_earlier_trials_out(storage: InMemoryStorage) -> None:
    def constrained(trial: optuna.Trial) -> float:
        value = bowl(trial)
        trial.set_constraint("x", trial.params["x"] - 0.9)
        return value

    study = tune(spec(n_trials=14, sampler=StrategySpec(name="GPSampler"), **old()), constrained, storage)
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}


def test_a_resumed_study_searches_all_parameters_that_its_own_trials_have(storage: InMemoryStorage) -> None:
    after_edit = spec(n_trials=8, sampler=StrategySpec(), **old(same_objective=False))
    tune(after_edit, deeper, storage)
    resumed = open_study(after_edit, storage)
    for _ in range(2):
        frozen = resumed.ask()._get_latest_trial()
        assert resumed.sampler.infer_relative_search_space(resumed, frozen).keys() == {"x", "y", "z"}


def test_a_warm_start_that_lacks_a_parameter_of_a_grid_draws_it(storage: InMemoryStorage) -> None:
    grid = {"search_space": {"x": [0.1, 0.9], "y": [0.2, 0.8], "z": [0.0, 1.0]}}
    changed_space = spec(
        n_trials=6, sampler=StrategySpec(name="GridSampler", options=grid), **old(same_objective=False)
    )
    study = tune(changed_space, deeper, storage)
    assert [is_warm(trial) for trial in study.trials[:3]] == [True] * 3
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}


def test_no_more_warm_starts_are_queued_than_there_is_room_for(storage: InMemoryStorage) -> None:
    study = tune(spec(n_trials=3), bowl, storage)
    nearly_done = open_study(spec(n_trials=4, **old()), storage)
    assert isinstance(nearly_done.sampler, TransferSampler)
    nearly_done.sampler.enqueue(nearly_done)
    assert sum(trial.state == TrialState.WAITING for trial in study.get_trials(deepcopy=False)) == 1
