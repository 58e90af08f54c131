"""What a gate may spend of α."""

from __future__ import annotations

import pytest

from shared.registry.spending import Turn, first_turn, next_turn, with_decision


def series(n: int, alpha: float, won: tuple[int, ...] = ()) -> list[Turn]:
    """So many gates on one holdout; those with a number in `won` find their challenger better."""
    turns = [first_turn(7, 100, alpha)]
    while len(turns) < n:
        last = turns[-1]
        p = last.level if last.number in won else 1.0
        turns.append(next_turn({**last.figures, "p": p}, alpha))
    return turns


def test_gates_without_a_promotion_never_spend_more_than_alpha() -> None:
    levels = [turn.level for turn in series(500, 0.05)]
    assert levels[:3] == pytest.approx([0.05 / 2, 0.05 / 6, 0.05 / 12])
    assert 0.0498 < sum(levels) < 0.05


def test_what_found_a_better_model_goes_on_to_the_next_gate() -> None:
    levels = [turn.level for turn in series(4, 0.06, won=(1, 2))]
    assert levels == pytest.approx([0.03, 0.03 + 0.01, 0.04 + 0.005, 0.003])


@pytest.mark.parametrize("won_before", [1, 2, 5])
def test_after_alpha_was_lowered_no_more_than_the_new_one_is_spent(won_before: int) -> None:
    before = series(won_before, 0.5, won=tuple(range(1, won_before)))[-1]
    after = [next_turn({**before.figures, "p": 0.001}, 0.05)]
    while len(after) < 500:
        after.append(next_turn({**after[-1].figures, "p": 1.0}, 0.05))
    assert 0.0498 < sum(turn.level for turn in after) < 0.05


def test_after_alpha_was_raised_no_more_is_handed_on_than_was_won() -> None:
    won = {**first_turn(7, 100, 0.05).figures, "p": 0.001}
    assert next_turn(won, 0.5).level == pytest.approx(0.025 + 0.5 / 6)


def test_a_series_remembers_where_it_began() -> None:
    turns = series(3, 0.05)
    assert [turn.number for turn in turns] == [1, 2, 3]
    assert {(turn.series, turn.rows) for turn in turns} == {(7, 100)}


def test_a_gate_that_has_not_decided_hands_nothing_on() -> None:
    better, other = {**first_turn(1, 50, 0.06).figures, "p": 0.001}, {"challenger": 0.9}
    undecided = next_turn(better, 0.06).figures
    decided = {**undecided, "p": 0.001}
    assert with_decision(undecided, [other, better]) == undecided
    assert with_decision(undecided, [decided, other]) == decided
    assert next_turn(undecided, 0.06).level == pytest.approx(0.005)
    assert next_turn(decided, 0.06).level == pytest.approx(0.005 + 0.04)


def test_a_decision_in_an_earlier_series_of_the_same_version_is_another_turns() -> None:
    earlier = {**first_turn(1, 50, 0.06).figures, "p": 0.001}
    renewed = first_turn(1, 70, 0.06).figures
    assert with_decision(renewed, [earlier]) == renewed
