"""What a job brought: read without trust, and never a reason to wait for ever."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.judging import case, result
from windlass.errors import Invalid
from windlass.judge.results import MAX_ATTEMPTS, Points, cut, judge, read_result
from windlass.judge.verdict import Status

ALL = Points(10, partial=False, case_count=2)
PARTIAL = Points(10, partial=True, case_count=3)


def test_scores_add_up_partial_or_all_or_nothing() -> None:
    judged = judge(result(["AC", "AC"], ["AC", "WA", "TLE"]), [ALL, PARTIAL])
    assert (judged.score, judged.verdict) == (13.3333, Status.TIME_LIMIT)
    judged = judge(result(["AC", "WA"], ["AC", "AC", "AC"]), [ALL, PARTIAL])
    assert (judged.score, judged.verdict) == (10, Status.WRONG_ANSWER)


def test_all_accepted_is_accepted_and_a_compile_error_is_that() -> None:
    assert judge(result(["AC", "AC"]), [ALL]).verdict is Status.ACCEPTED
    assert judge(result(["CE", "CE"]), [ALL]).verdict is Status.COMPILE_ERROR
    assert judge(result(["CE", "CE"]), [ALL]).score == 0


def test_a_job_that_failed_is_a_judges_error_with_its_history() -> None:
    attempts = [{"runner": "rn_1", "reason": "lease_expired"}]
    judged = judge({"failed": "3 attempts", "attempts": attempts}, [ALL])
    assert (judged.verdict, judged.reason, judged.cases) == (Status.JUDGE_ERROR, "3 attempts", ())
    assert judged.attempts == b'[{"runner":"rn_1","reason":"lease_expired"}]'


@pytest.mark.parametrize("attempts", [None, "x", 5, [object()], [1] * MAX_ATTEMPTS, [float("nan")], {"a": 1}])
def test_a_history_of_any_shape_is_borne(attempts: object) -> None:
    judged = judge({"failed": None, "attempts": attempts}, [ALL])
    assert judged.verdict is Status.JUDGE_ERROR
    assert len(judged.attempts or b"") <= MAX_ATTEMPTS


MALFORMED: dict[str, Any] = {
    "nothing": {},
    "null": {"tasks": None},
    "no list": {"tasks": 5},
    "no tasks": {"tasks": []},
    "no cases": {"tasks": [[]]},
    "one case less": result(["AC"]),
    "one case more": result(["AC", "AC", "AC"]),
    "one task more": result(["AC", "AC"], ["AC"]),
    "another status": {"tasks": [[case("OK"), case()]]},
    "no status": {"tasks": [[{}, case()]]},
    "a negative time": {"tasks": [[case(execTime=-1), case()]]},
    "no number": {"tasks": [[case(execTime=float("nan")), case()]]},
    "infinite": {"tasks": [[case(memoryUsage=float("inf")), case()]]},
    "too large": {"tasks": [[case(memoryUsage=10**30), case()]]},
    "a large exit code": {"tasks": [[case(exitCode=2**70), case()]]},
    "an output that is none": {"tasks": [[case(stdout=5), case()]]},
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_result_is_refused_and_never_a_verdict(kind: str) -> None:
    """Planted defects: a job of zero cases that never ends; a case without a result taken for accepted."""
    with pytest.raises(Invalid):
        read_result(MALFORMED[kind].get("tasks"), [2])
    judged = judge(MALFORMED[kind], [ALL])
    assert (judged.verdict, judged.score, judged.cases) == (Status.JUDGE_ERROR, 0, ())
    assert judged.reason


def test_what_is_left_out_or_unknown_does_not_matter() -> None:
    cases = read_result([[{"status": "AC"}, case(exitCode=None, unknown=1)]], [2])
    assert [one.status for one in cases[0]] == [Status.ACCEPTED] * 2


@given(st.text(max_size=50), st.integers(0, 100))
def test_a_text_is_cut_to_bytes(text: str, most: int) -> None:
    assert len(cut(text, most)) <= most
    assert text.encode("utf-8", "replace").startswith(cut(text, most))


def test_lone_surrogates_are_question_marks() -> None:
    assert cut("a\ud800b", 10) == b"a?b"
    assert judge({"failed": "\ud800", "attempts": ["\ud800"]}, [ALL]).verdict is Status.JUDGE_ERROR
