"""A submission's stream of events: its changes, and what is told of its job between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec

from tests.judging import Bench
from windlass.errors import JobNotFound
from windlass.server.following import follow
from windlass.server.lane import AsgiClient
from windlass.server.streams import server_event

Told = tuple[Sequence[tuple[int, dict[str, Any]]], bool]


class Here:
    """A client that stays."""

    def __init__(self) -> None:
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def gone(self) -> asyncio.Future[None]:
        return self._gone


async def _collect(
    bench: Bench, submission: str, watch: Callable[[str, int, float], Any], then: Callable[[], None]
) -> list[tuple[str, Any]]:
    now = await bench.judge.submissions.get(submission)
    found = []
    client = cast(AsgiClient, Here())
    async for event in follow(bench.judge, watch, now, None, 60, client):
        if event.startswith(b":"):
            continue
        fields = dict(line.split(": ", 1) for line in event.decode().strip().splitlines())
        found.append((fields["event"], msgspec.json.decode(fields["data"])))
        then()
    return found


def test_cases_come_between_the_changes_and_only_once(tmp_path: Any) -> None:
    """Planted defect: a loop that asks for the events of a job that is over again and again."""
    with Bench(tmp_path / "judge") as bench:
        bench.problem()
        submission = bench.submit()
        asked: list[tuple[str, int]] = []
        case = {"event": "case", "task": 1, "case": 1, "status": "AC"}

        async def watch(job: str, last: int, _wait: float) -> Told:
            asked.append((job, last))
            return ([(7, case)], False) if last == 0 else ([(8, {"event": "done"})], True)

        count = 0

        def then() -> None:
            nonlocal count
            count += 1
            if count == 3:  # pending, case, done: the job is over, and only now is it written down
                asyncio.get_running_loop().call_later(
                    0.05, lambda: asyncio.ensure_future(bench.judge.project("jb_1", submission, 1, _RESULT))
                )

        found = bench.run(_collect(bench, submission, watch, then))
        assert [name for name, _ in found] == ["submission", "case", "done", "submission"]
        assert found[1][1] == case
        assert (found[3][1]["status"], found[3][1]["verdict"]) == ("done", "AC")
        assert asked == [("jb_1", 0), ("jb_1", 7)]


_CASE = {"stdout": "", "stderr": "", "exitCode": 0, "execTime": 1, "memoryUsage": 1, "status": "AC"}
_RESULT: dict[str, Any] = {"tasks": [[_CASE, _CASE]]}


def test_a_job_that_nobody_knows_any_more_leaves_the_changes(tmp_path: Any) -> None:
    with Bench(tmp_path / "judge") as bench:
        bench.problem()
        submission = bench.submit()

        async def watch(_job: str, _last: int, _wait: float) -> Told:
            asyncio.ensure_future(bench.judge.project("jb_1", submission, 1, _RESULT))  # noqa: RUF006
            raise JobNotFound

        found = bench.run(_collect(bench, submission, watch, lambda: None))
        assert [name for name, _ in found] == ["submission", "submission"]


def test_a_runner_cannot_make_up_lines_of_the_stream() -> None:
    """Planted defect: an event's name as a runner gives it."""
    assert server_event("case\ndata: {}", b"1") == b"data: 1\n\n"
    assert server_event("case", b"1", "7") == b"event: case\nid: 7\ndata: 1\n\n"
