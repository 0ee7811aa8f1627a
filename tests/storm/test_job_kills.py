"""kill -9 of runners and of the server, again and again, while programs are judged.

`WINDLASS_SEED=N` repeats the choices of a run: programs, rejudgements, who is killed when.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.harness import ServerProcess, until
from tests.installation import (
    PYTHON,
    C,
    Judge,
    RunnerProcess,
    adopting,
    burnt,
    descendants,
    ends,
    server_environment,
)

pytestmark = pytest.mark.storm


@pytest.fixture(autouse=True)
def _adopting() -> Iterator[None]:
    """What a killed runner leaves behind is ours to find."""
    with adopting():
        yield


KILLS = 20  # of each kind
LEASE = 4.0
TIME_LIMIT = 2_000  # ms; a program may wait for 5 s by the clock, and six run at a time
SUM, SHIFTING = 1, 2
UNDER_WAY = 6  # submissions of each sender that have no verdict yet

ADD = '#include <stdio.h>\nint main(void) { int a, b; scanf("%d %d", &a, &b); printf("%d\\n", a + b); }'
PROGRAMS = [  # (how often, verdict, language, source)
    (8, "AC", PYTHON, "print(sum(map(int, input().split())))"),
    (3, "AC", C, ADD),
    (5, "WA", PYTHON, "print(-1)"),
    (4, "RE", PYTHON, "1 / 0"),
    (2, "RE", C, "#include <stdlib.h>\nint main(void) { abort(); }"),
    (3, "CE", PYTHON, "print("),
    (2, "CE", C, "int main("),
    (1, "TLE", PYTHON, "while True: pass"),
    (1, "TLE", PYTHON, "import os, time\nif os.fork() == 0: os.setsid()\ntime.sleep(1000)"),
    (2, "OLE", PYTHON, "while True: print('x' * 100_000)"),
    (1, "MLE", PYTHON, "x = bytearray(300_000_000)"),
]


class Ledger:
    """What every submission has to come to, and what was seen of it."""

    def __init__(self) -> None:
        self.programs: dict[str, str] = {}
        """Submission -> its verdict."""
        self.shifting: dict[str, int] = {}
        """Submission -> what its program prints."""
        self.judged_by: dict[tuple[str, int], int] = {}
        """(submission, generation) -> what the problem wanted of it, where that is known."""
        self._seen: dict[tuple[str, int], tuple[Any, ...]] = {}
        self.verdicts: Counter[str] = Counter()
        self.rejudged = 0

    def saw(self, found: dict[str, Any]) -> None:
        """AssertionError where a submission's verdict is wrong, or another than it was told before."""
        if found["status"] != "done":
            return
        name, generation = found["submission_id"], found["generation"]
        if name in self.programs:
            assert found["verdict"] == self.programs[name], json.dumps(found, indent=1)
        elif (name, generation) in self.judged_by:
            wanted = self.judged_by[name, generation] == self.shifting[name]
            assert found["verdict"] == ("AC" if wanted else "WA"), f"judged by other test data: {found}"
        once = found["verdict"], found["judged_at"], found["job_id"]
        assert self._seen.setdefault((name, generation), once) == once, f"told twice: {found}"

    @property
    def all(self) -> list[str]:
        return [*self.programs, *self.shifting]


class Storm:
    """One installation, those who use it, and who kills it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._seed = seed
        self._rng = random.Random(seed)
        self.ledger = Ledger()
        self.server = ServerProcess(folder / "data", environment=server_environment(LEASE, heartbeat=0.5))
        self.runners = [RunnerProcess(self.server, folder, f"r{n}", "--jobs", "2") for n in range(3)]
        self.judge = Judge(self.server)
        self._calm = threading.Event()
        self._wanted = 0
        self.boxes = 0
        """Processes in boxes whose runner was killed."""

    def run(self) -> None:
        self.server.start()
        for runner in self.runners:
            runner.start()
        self.judge.put_problem(SUM, [("1 2", "3"), ("20 30", "50")], time_limit=TIME_LIMIT)
        self._shift()
        with ThreadPoolExecutor(3) as pool:
            users: list[Future[None]] = [
                pool.submit(self._send, "a", self._fork()),
                pool.submit(self._send, "b", self._fork()),
                pool.submit(self._judge_again, self._fork()),
            ]
            try:
                self._kill_again_and_again(users)
            finally:
                self._calm.set()
            for user in users:
                user.result()
        self._settle()

    def _fork(self) -> random.Random:
        return random.Random(self._rng.random())

    # --- those who use it -----------------------------------------------------------------------------

    def _send(self, sender: str, rng: random.Random) -> None:
        waiting: list[str] = []
        first = rng.sample(PROGRAMS, len(PROGRAMS))  # each once, whatever the seed
        number = 0
        while not self._calm.is_set():
            number += 1
            key = f"{self._seed}-{sender}-{number}"
            if rng.random() < 0.2:
                printed = rng.randrange(2)
                name = self.judge.submit(SHIFTING, f"print({printed})", key=key)
                self.ledger.shifting[name] = printed
            else:
                weights = [weight for weight, *_ in PROGRAMS]
                chosen = first.pop() if first else rng.choices(PROGRAMS, weights)[0]
                _, verdict, language, source = chosen
                name = self.judge.submit(SUM, source, language, key=key)
                self.ledger.programs[name] = verdict
            waiting.append(name)
            while len(waiting) >= UNDER_WAY and not self._calm.is_set():
                found = self.judge.submission(waiting[0], wait=1)
                self.ledger.saw(found)
                if found["status"] == "done":
                    waiting.pop(0)

    def _judge_again(self, rng: random.Random) -> None:
        while not self._calm.wait(rng.uniform(0.1, 0.8)):
            if rng.random() < 0.5 and self.ledger.programs:
                self.judge.rejudge(rng.choice(list(self.ledger.programs)))
                self.ledger.rejudged += 1
            elif len(self.ledger.shifting) < 60 or rng.random() < 0.1:
                self._shift()

    def _shift(self) -> None:
        """Have the other program accepted from now on, and all of them judged by that."""
        self._wanted = 1 - self._wanted
        self.judge.put_problem(SHIFTING, [("", f"{self._wanted}\n")], time_limit=TIME_LIMIT)
        self.judge.rejudge_all(SHIFTING)
        for found in self.judge.submissions(SHIFTING):
            self.ledger.judged_by[found["submission_id"], found["generation"]] = self._wanted

    # --- who kills it ---------------------------------------------------------------------------------

    def _kill_again_and_again(self, users: list[Future[None]]) -> None:
        kinds = ["server", "runner"] * KILLS
        self._rng.shuffle(kinds)
        until(lambda: self.judge.jobs("running"), what="the first job")
        while kinds:
            self._calm.wait(self._rng.uniform(0.0, 2.0))
            until(lambda: self._bearable(users), 300, "an attempt to spare for every job")
            if kinds.pop() == "runner":
                self._kill_runner(self._rng.choice(self.runners))
                continue
            self.server.kill()
            if kinds and kinds[-1] == "server" and self._rng.random() < 0.3:  # again while it starts
                kinds.pop()
                self.server.launch()
                self._calm.wait(self._rng.uniform(0.0, 1.0))
                self.server.kill()
            self.server.start()

    def _bearable(self, users: list[Future[None]]) -> bool:
        """Whether no job would die of one kill more: three attempts at most is what is promised, and right.

        An attempt that is under way may be lost already, and the next one be lost by this kill.
        """
        for user in users:
            if user.done():
                user.result()
        return (
            all(burnt(job) == 0 for job in self.judge.jobs("running"))
            and all(burnt(job) <= 1 for job in self.judge.jobs("queued"))
            and all(burnt(job) == 0 for job in self.judge.jobs("running"))  # those that moved meanwhile
        )

    def _kill_runner(self, runner: RunnerProcess) -> None:
        assert runner.running, f"{runner.name} ended by itself:\n{runner.log}"
        self.boxes += runner.kill()
        runner.start()

    # --- when it is over ------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Everything ends, right and soon, and nothing is left."""
        self._shift()
        began = time.monotonic()
        for name in self.ledger.all:
            found = self.judge.done(name, max(1.0, began + 300 - time.monotonic()))
            self.ledger.saw(found)
            self.ledger.verdicts[found["verdict"]] += 1
            if name in self.ledger.shifting:
                assert (found["verdict"] == "AC") == (self.ledger.shifting[name] == self._wanted), found
        for problem, names in ((SUM, self.ledger.programs), (SHIFTING, self.ledger.shifting)):
            listed = self.judge.submissions(problem)
            assert sorted(each["submission_id"] for each in listed) == sorted(names)
        until(lambda: not any(runner.jobs for runner in self.runners), what="empty directories")
        generations = {name: self.judge.submission(name)["generation"] for name in self.ledger.all}
        for runner in self.runners:
            assert runner.terminate() == 0, runner.log
        assert self.server.terminate() == 0
        left = ends(self.server.data_dir)
        assert (left.untold, left.left, left.unsent) == (0, 0, 0)
        assert max(left.verdicts.values()) == 1, "two jobs of one generation brought a result"
        assert all(left.verdicts[end] == 1 for end in generations.items())


def test_a_job_that_kills_its_runner_again_and_again_ends_and_the_others_go_on(tmp_path: Path) -> None:
    """Planted: a dead runner's job that counts no attempt; a death of which its submission is not told."""
    with ServerProcess(tmp_path / "data", environment=server_environment(5, heartbeat=0.5)) as server:
        doomed = RunnerProcess(server, tmp_path, "doomed", "--labels", "doomed")
        judge, other = Judge(server), RunnerProcess(server, tmp_path, "other")
        judge.put_problem(SUM, [("1 2", "3")], time_limit=60_000)
        other.start()
        try:
            deadly = judge.submit(SUM, "import time\ntime.sleep(60)", key="deadly", labels=["doomed"])
            for attempt in range(3):
                doomed.start()
                until(partial(_running, judge, "doomed", attempt + 1), what=f"attempt {attempt + 1}")
                until(lambda: len(descendants(doomed.pid)) > 2, what="its program in a box")
                doomed.kill()
                harmless = judge.submit(SUM, "print(sum(map(int, input().split())))", key=f"{attempt}")
                assert judge.done(harmless, 60)["verdict"] == "AC"
            found = judge.done(deadly, 60)
            doomed.start()
            until(lambda: "This is rn_" in doomed.log.rpartition("Took")[2], what="its last life")
            assert judge.jobs("running") == judge.jobs("queued") == []
            until(lambda: doomed.jobs == [], what="an empty directory")
            assert doomed.terminate() == other.terminate() == 0
        finally:
            for runner in (doomed, other):
                if runner.running:
                    runner.kill()
            judge.close()
        assert doomed.groups() == other.groups() == []
    assert (found["verdict"], found["reason"]) == ("JE", "The last runner fell silent.")
    history = [each["event"] for each in found["attempts"]]
    assert history == ["sent", *["leased", "lease_expired"] * 3, "dead"]


def _running(judge: Judge, label: str, attempts: int) -> bool:
    return any(job["labels"] == [label] and job["attempts"] == attempts for job in judge.jobs("running"))


@pytest.mark.timeout(1800)
def test_every_submission_gets_its_verdict_whoever_is_killed(tmp_path: Path) -> None:
    """Planted: claims forgotten at a restart; outcomes told before they are kept; superseded jobs that are
    projected; boxes that outlive their runner; control groups that nobody sweeps."""
    seed = int(os.environ.get("WINDLASS_SEED") or random.randrange(2**32))
    print(f"WINDLASS_SEED={seed}")
    storm = Storm(tmp_path, seed)
    began = time.monotonic()
    try:
        storm.run()
        assert [runner.groups() for runner in storm.runners] == [[], [], []]
        for log in (storm.server.log, *(runner.log for runner in storm.runners)):
            assert "Traceback" not in log, log
    finally:
        for runner in storm.runners:
            if runner.running:
                runner.kill()
        storm.server.kill()
        storm.judge.close()
    ledger = storm.ledger
    print(
        f"{time.monotonic() - began:.0f} s, {len(ledger.all)} submissions, {ledger.rejudged} judged again,"
        f" {storm.boxes} processes in boxes of killed runners, {dict(ledger.verdicts)}"
    )
    # A storm that did nothing proves nothing.
    assert len(ledger.all) > 40  # a kill each
    assert ledger.rejudged > 10
    assert storm.boxes > 10
    assert set(ledger.verdicts) == {"AC", "WA", "RE", "CE", "TLE", "OLE", "MLE"}
