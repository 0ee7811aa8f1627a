"""The ledger of `windlass torture`: every broken promise is planted once and must be found, and no other.

A ledger that finds nothing would make every storm pass; each test here is such a defect of the ledger.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import shutil
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from windlass.cli.torture import torture
from windlass.torture import Report, process
from windlass.torture.client import Field
from windlass.torture.consumer import Consumer
from windlass.torture.content import content, token_of
from windlass.torture.ledger import EVIDENCE, Ledger
from windlass.torture.records import Delivery, Kind, Received, Send, Take
from windlass.torture.wire import Asked, Connection, Dropped


class Story:
    """A storm told in a few lines: each step takes one second unless told otherwise."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.now = 0.0
        self.numbers: dict[str, int] = {}

    def tick(self) -> float:
        self.now += 1
        return self.now

    def send(self, *tokens: str, answer: str = "stored", queue: str = "q", group: str = "") -> Send:
        send = self.ledger.send(queue, tokens, self.tick(), group)
        if answer == "stored":
            self.ledger.stored(send, [f"id-{token}" for token in tokens], self.tick())
        elif answer == "refused":
            self.ledger.refused(send, self.tick())
        elif answer == "lost":
            self.ledger.given_up(send, self.tick())
        return send

    def begin(self, lease: float | None = None, limit: int = 1, queue: str = "q") -> Take:
        return self.ledger.take(queue, limit, lease, self.tick())

    def answer(self, take: Take, *tokens: str, number: int | None = None) -> list[Delivery]:
        received = []
        for token in tokens:
            self.numbers[token] = number or self.numbers.get(token, 0) + 1
            received.append(Received(token, f"id-{token}", self.numbers[token], f"r-{token}"))
        return self.ledger.answered(take, received, self.tick())

    def plain(self, *tokens: str) -> list[Delivery]:
        return self.answer(self.begin(None, max(1, len(tokens))), *tokens)

    def lease(self, *tokens: str, seconds: float = 100, number: int | None = None) -> Delivery:
        return self.answer(self.begin(seconds, max(1, len(tokens))), *tokens, number=number)[0]

    def lost(self, lease: float | None = None, limit: int = 1) -> None:
        self.ledger.unanswered(self.begin(lease, limit), self.tick())

    def acknowledge(self, delivery: Delivery, answer: str = "acknowledged") -> None:
        self.ledger.acknowledging(delivery)
        if answer == "acknowledged":
            self.ledger.acknowledged(delivery, self.tick())
        elif answer == "gone":
            self.ledger.gone(delivery, self.tick())
        elif answer == "stale":
            self.ledger.stale(delivery, self.tick())
        elif answer == "deleted":
            self.ledger.deleted(delivery, self.tick())

    def found(self) -> list[Kind]:
        return [violation.kind for violation in self.ledger.verdict()]


@pytest.fixture
def story() -> Story:
    return Story()


# -- stories in which every promise is kept


def test_a_storm_that_keeps_every_promise(story: Story) -> None:
    story.send("a")
    story.send("b", "c")
    story.plain("a")
    story.plain("b")
    story.plain("c")
    story.send("leased", queue="other")
    delivery = story.answer(story.begin(100, queue="other"), "leased")[0]
    story.acknowledge(delivery)
    story.acknowledge(delivery)
    assert story.found() == []


def test_a_send_without_an_answer_may_be_there_or_not(story: Story) -> None:
    story.send("a", answer="lost")
    story.send("b", "c", answer="lost")
    story.plain("b", "c")
    assert story.found() == []


def test_a_plain_receive_without_an_answer_may_take_one_message_with_it(story: Story) -> None:
    story.send("a")
    story.send("b")
    story.lost()
    story.plain("b")
    assert story.found() == []
    assert story.ledger.vanished == 1


def test_a_plain_receive_of_many_without_an_answer_may_take_them_all_with_it(story: Story) -> None:
    story.send("a", "b", "c")
    story.lost(limit=3)
    assert story.found() == []
    assert story.ledger.vanished == 3


def test_a_stranger_that_may_have_left_before_the_batch_does_not_split_it(story: Story) -> None:
    story.send("x")
    story.send("a", "b")
    slow = story.begin()
    story.plain("a")
    story.plain("b")
    story.answer(slow, "x")
    assert story.found() == []


def test_a_stranger_that_may_have_left_after_the_batch_does_not_split_it(story: Story) -> None:
    story.send("a", "b")
    story.send("x")
    story.plain("a")
    slow = story.begin()
    story.plain("b")
    story.answer(slow, "x")
    assert story.found() == []


def test_a_lease_may_be_shorter_by_a_rounding(story: Story) -> None:
    story.send("a")
    story.lease("a", seconds=3.0 + story.ledger.tolerance / 2)  # two seconds pass until the next answer
    story.acknowledge(story.lease("a"))
    assert story.found() == []


def test_an_acknowledgement_without_an_answer_may_count_or_not(story: Story) -> None:
    for token in ("a", "b"):
        story.send(token)
    story.acknowledge(story.lease("a"), answer="none")
    story.acknowledge(story.lease("b", seconds=1), answer="none")
    story.tick()
    again = story.lease("b")
    story.acknowledge(again)
    assert story.found() == []


def test_a_lease_that_ran_out_is_given_to_another_and_the_old_receipt_is_stale(story: Story) -> None:
    story.send("a")
    old = story.lease("a", seconds=1)
    story.tick()
    new = story.lease("a")
    story.acknowledge(old, "stale")
    story.acknowledge(new)
    story.acknowledge(old, "gone")
    assert story.found() == []


def test_a_message_given_back_may_be_received_at_once_and_out_of_turn(story: Story) -> None:
    story.send("a")
    story.send("b")
    delivery = story.lease("a")
    story.acknowledge(story.lease("b"))
    story.ledger.giving_back(delivery, story.now)
    story.acknowledge(story.lease("a"))
    assert story.found() == []


def test_a_message_deleted_after_its_lease_may_be_gone_or_come_back(story: Story) -> None:
    for token in ("a", "b"):
        story.send(token)
        late = story.lease(token, seconds=1)
        story.acknowledge(late, "deleted")
    story.acknowledge(story.lease("b"), "deleted")
    assert story.found() == []


def test_whoever_comes_late_may_find_that_another_has_the_message_or_has_consumed_it(story: Story) -> None:
    story.send("a")
    old = story.lease("a", seconds=1)
    story.tick()
    new = story.lease("a")
    story.ledger.not_held(old, story.tick())
    story.acknowledge(new, "deleted")
    story.ledger.not_there(old)
    assert story.found() == []


def test_sends_that_overlap_have_no_order(story: Story) -> None:
    first = story.ledger.send("q", ["a"], story.tick())
    second = story.ledger.send("q", ["b"], story.tick())
    story.ledger.stored(first, ["id-a"], story.tick())
    story.ledger.stored(second, ["id-b"], story.tick())
    story.plain("b")
    story.plain("a")
    assert story.found() == []


def test_receives_that_overlap_have_no_order(story: Story) -> None:
    story.send("a")
    story.send("b")
    one, two = story.begin(), story.begin()
    story.answer(two, "b")
    story.answer(one, "a")
    assert story.found() == []


def test_groups_do_not_hold_each_other_up(story: Story) -> None:
    story.send("a", group="one")
    story.send("lost", group="two", answer="lost")
    story.send("b", group="two")
    story.send("c", group="one")
    story.acknowledge(story.lease("b"))
    first = story.lease("a", seconds=1)
    story.acknowledge(first, answer="none")
    story.acknowledge(story.lease("c"))
    assert story.found() == []


# -- lost


def test_an_acknowledged_message_that_never_comes_is_lost(story: Story) -> None:
    story.send("a")
    assert story.found() == [Kind.LOST]


def test_more_missing_than_receives_without_an_answer_is_lost(story: Story) -> None:
    story.send("a")
    story.send("b")
    story.lost()
    assert story.found() == [Kind.LOST]


def test_a_receive_with_a_lease_takes_nothing_with_it(story: Story) -> None:
    story.send("a")
    story.lost(lease=100)
    assert story.found() == [Kind.LOST]


def test_a_receive_that_died_before_the_send_cannot_have_taken_it(story: Story) -> None:
    story.lost()
    story.send("a")
    assert story.found() == [Kind.LOST]


def test_a_leased_message_never_acknowledged_and_not_there_again_is_lost(story: Story) -> None:
    story.send("a")
    story.lease("a", seconds=1)
    assert story.found() == [Kind.LOST]


def test_a_message_gone_though_nobody_acknowledged_it_is_lost(story: Story) -> None:
    story.send("a")
    story.acknowledge(story.lease("a"), "gone")
    assert story.found() == [Kind.LOST]


def test_a_message_that_only_a_late_delete_can_have_taken_is_lost(story: Story) -> None:
    """A receipt that is no longer good has consumed it: its next holder forgets it, and it is gone."""
    story.send("a")
    old = story.lease("a", seconds=1)
    story.tick()
    story.lease("a", seconds=1)
    story.acknowledge(old, "deleted")
    assert story.found() == [Kind.LOST]


def test_a_message_that_is_gone_under_its_holder_is_lost(story: Story) -> None:
    story.send("a")
    old = story.lease("a", seconds=1)
    story.tick()
    new = story.lease("a")
    story.acknowledge(old, "none")
    story.ledger.not_there(new)
    story.acknowledge(new, "deleted")
    assert story.found() == [Kind.LOST]


# -- resurrected


def test_a_message_deleted_inside_its_lease_that_comes_back_is_resurrected(story: Story) -> None:
    story.send("a")
    story.acknowledge(story.lease("a", seconds=3), "deleted")
    story.tick()
    story.acknowledge(story.lease("a"), "deleted")
    assert story.found() == [Kind.RESURRECTED]


def test_a_consumed_message_handed_out_again_is_resurrected(story: Story) -> None:
    story.send("a")
    story.acknowledge(story.lease("a", seconds=1))
    story.tick()
    story.lease("a")
    assert Kind.RESURRECTED in story.found()


def test_a_receive_under_way_during_the_acknowledgement_must_not_get_the_message(story: Story) -> None:
    story.send("a")
    delivery = story.lease("a", seconds=1)
    late = story.begin(100)
    story.acknowledge(delivery)
    story.answer(late, "a")
    assert story.found() == [Kind.RESURRECTED]


def test_a_consumed_message_handed_out_under_a_number_that_went_back_is_resurrected(story: Story) -> None:
    story.send("a")
    story.acknowledge(story.lease("a", number=2))
    story.lease("a", number=1)
    assert story.found() == [Kind.RESURRECTED]


def test_a_consumed_message_handed_out_with_its_old_number_is_found_too(story: Story) -> None:
    story.send("a")
    story.acknowledge(story.lease("a"))
    story.lease("a", number=1)
    assert story.found() == [Kind.SHARED]


def test_a_consumed_message_whose_receipt_is_stale_is_resurrected(story: Story) -> None:
    story.send("a")
    delivery = story.lease("a")
    story.acknowledge(delivery)
    story.acknowledge(delivery, "stale")
    assert Kind.RESURRECTED in story.found()


# -- duplicated


def test_a_message_given_to_two_plain_receives_is_duplicated(story: Story) -> None:
    story.send("a")
    story.plain("a")
    story.plain("a")
    assert story.found() == [Kind.DUPLICATED]


def test_a_retried_send_that_was_stored_twice_is_duplicated(story: Story) -> None:
    """The same token under two ids: an Idempotency-Key or a dedup_id that was forgotten."""
    story.send("a")
    story.acknowledge(story.lease("a"))
    story.ledger.answered(story.begin(100), [Received("a", "another-id", 2, "r")], story.tick())
    assert Kind.DUPLICATED in story.found()


def test_a_retry_answered_with_another_id_is_duplicated(story: Story) -> None:
    send = story.ledger.send("q", ["a"], story.tick())
    story.plain("a")
    story.ledger.stored(send, ["another-id"], story.tick())
    assert story.found() == [Kind.DUPLICATED]


# -- shared


def test_a_message_handed_out_inside_the_lease_of_another_is_shared(story: Story) -> None:
    story.send("a")
    story.lease("a")
    story.acknowledge(story.lease("a"))
    assert story.found() == [Kind.SHARED]


def test_a_message_handed_out_inside_an_extended_lease_is_shared(story: Story) -> None:
    story.send("a")
    delivery = story.lease("a", seconds=2)
    story.ledger.extended(delivery, story.tick(), 100)
    for _ in range(5):
        story.tick()
    story.acknowledge(story.lease("a"))
    assert story.found() == [Kind.SHARED]


# -- reordered


def test_a_younger_message_that_leaves_first_is_reordered(story: Story) -> None:
    story.send("a")
    story.send("b")
    story.plain("b")
    story.plain("a")
    assert story.found() == [Kind.REORDERED]


def test_a_send_whose_answer_was_lost_comes_before_what_was_sent_after_it(story: Story) -> None:
    story.send("a", answer="lost")
    story.send("b")
    story.plain("b")
    story.plain("a")
    assert story.found() == [Kind.REORDERED]


def test_a_younger_message_that_is_leased_first_is_reordered(story: Story) -> None:
    story.send("a")
    story.send("b")
    story.acknowledge(story.lease("b"))
    story.acknowledge(story.lease("a"))
    assert story.found() == [Kind.REORDERED]


def test_a_younger_message_first_in_one_answer_is_reordered(story: Story) -> None:
    story.send("a")
    story.send("b")
    story.plain("b", "a")
    assert story.found() == [Kind.REORDERED]


def test_a_batch_that_leaves_backwards_is_reordered(story: Story) -> None:
    story.send("a", "b")
    story.plain("b")
    story.plain("a")
    assert story.found() == [Kind.REORDERED]


def test_a_batch_backwards_in_one_answer_is_reordered(story: Story) -> None:
    story.send("a", "b")
    story.plain("b", "a")
    assert story.found() == [Kind.REORDERED]


@pytest.mark.parametrize("leased", [True, False])
def test_a_message_that_leaves_before_an_older_one_of_its_group_is_reordered(
    story: Story, leased: bool
) -> None:
    story.send("a", group="one")
    story.send("b", group="one")
    if leased:
        older = story.lease("a")
        story.acknowledge(story.lease("b"))
        story.acknowledge(older)
    else:
        story.acknowledge(story.lease("b"))
        story.acknowledge(story.lease("a"))
    assert story.found() == [Kind.REORDERED]


def test_two_messages_of_a_group_in_one_answer_are_reordered(story: Story) -> None:
    story.send("a", "b", group="one")
    for delivery in story.answer(story.begin(100, limit=2), "a", "b"):
        story.acknowledge(delivery)
    assert story.found() == [Kind.REORDERED]


def test_whole_groups_in_one_answer_are_fine(story: Story) -> None:
    """Where the protocol allows them: each in its order, and none after a part of it was given out."""
    story.ledger = Ledger(whole_groups=True)
    story.send("a", "b", group="one")
    story.send("c", group="two")
    story.send("d", group="one")
    for delivery in story.answer(story.begin(100, limit=4), "a", "b", "d", "c"):
        story.acknowledge(delivery)
    assert story.found() == []


@pytest.mark.parametrize("answers", [["b", "a"], ["ac", "b"], ["acb"]])
def test_a_group_that_is_given_out_in_another_order_is_reordered(story: Story, answers: list[str]) -> None:
    story.ledger = Ledger(whole_groups=True)
    for token in "abc":
        story.send(token, group="one")
    taken = [story.answer(story.begin(100, limit=3), *answer) for answer in answers]
    for delivery in itertools.chain(*taken):
        story.acknowledge(delivery)
    assert Kind.REORDERED in story.found()


def test_a_message_whose_deliveries_begin_at_nought_is_a_failure(story: Story) -> None:
    """The order of first deliveries is checked by their number: a server that counts wrong is not let off."""
    story.send("a")
    story.ledger.answered(story.begin(), [Received("a", "id-a", 0)], story.tick())
    assert story.found() == [Kind.FAILED]


# -- split


def test_half_a_batch_whose_answer_was_lost_is_split(story: Story) -> None:
    story.send("a", "b", answer="lost")
    story.plain("a")
    assert story.found() == [Kind.SPLIT]


def test_a_stranger_inside_a_batch_splits_it(story: Story) -> None:
    batch = story.ledger.send("q", ["a", "b"], story.tick())
    other = story.ledger.send("q", ["x"], story.tick())
    story.ledger.stored(batch, ["id-a", "id-b"], story.tick())
    story.ledger.stored(other, ["id-x"], story.tick())
    for token in ("a", "x", "b"):
        story.plain(token)
    assert story.found() == [Kind.SPLIT]


def test_a_stranger_inside_a_batch_in_one_answer_splits_it(story: Story) -> None:
    batch = story.ledger.send("q", ["a", "b"], story.tick())
    other = story.ledger.send("q", ["x"], story.tick())
    story.ledger.stored(batch, ["id-a", "id-b"], story.tick())
    story.ledger.stored(other, ["id-x"], story.tick())
    story.plain("a", "x", "b")
    assert story.found() == [Kind.SPLIT]


# -- invented, unfenced, failed


def test_a_message_nobody_sent_is_invented(story: Story) -> None:
    story.send("a")
    story.plain("a")
    story.plain("b")
    assert story.found() == [Kind.INVENTED]


def test_a_message_in_the_wrong_queue_is_invented(story: Story) -> None:
    story.send("a", queue="other", answer="lost")
    story.plain("a")
    assert story.found() == [Kind.INVENTED]


@pytest.mark.parametrize("received_first", [True, False])
def test_a_refused_message_that_is_there_is_invented(story: Story, received_first: bool) -> None:
    if received_first:
        send = story.ledger.send("q", ["a"], story.tick())
        story.plain("a")
        story.ledger.refused(send, story.tick())
    else:
        story.send("a", answer="refused")
        story.plain("a")
    assert story.found() == [Kind.INVENTED]


def test_an_old_receipt_that_still_acknowledges_is_unfenced(story: Story) -> None:
    story.send("a")
    old = story.lease("a", seconds=1)
    story.tick()
    new = story.lease("a")
    story.acknowledge(old)
    story.acknowledge(new)
    assert Kind.UNFENCED in story.found()


def test_a_receipt_that_is_stale_inside_its_lease_is_unfenced(story: Story) -> None:
    story.send("a")
    delivery = story.lease("a")
    story.acknowledge(delivery, "stale")
    story.acknowledge(delivery)
    assert story.found() == [Kind.UNFENCED]


def test_a_receipt_that_holds_nothing_inside_its_lease_is_unfenced(story: Story) -> None:
    story.send("a")
    delivery = story.lease("a")
    story.ledger.not_held(delivery, story.tick())
    story.acknowledge(delivery)
    assert story.found() == [Kind.UNFENCED]


def test_more_messages_than_asked_for_and_fewer_ids_than_sent_are_failures(story: Story) -> None:
    send = story.ledger.send("q", ["a", "b"], story.tick())
    story.ledger.stored(send, ["id-a"], story.tick())
    story.answer(story.begin(limit=1), "a", "b")
    story.ledger.failed("q", "500 Internal Server Error")
    assert story.found() == [Kind.FAILED] * 3


def test_the_evidence_names_a_few_messages_and_counts_the_rest(story: Story) -> None:
    story.send(*(f"m{number}" for number in range(EVIDENCE + 7)))
    violations = story.ledger.verdict()
    assert len(violations) == EVIDENCE + 1
    assert "m0" in str(violations[0])
    assert violations[-1].evidence == "and 7 more"


def test_the_ledger_knows_how_many_messages_wait(story: Story) -> None:
    story.send("a", "b", "c")
    story.send("d", answer="lost")
    assert story.ledger.waiting("q") == 3
    story.lease("a", seconds=1)
    story.tick()
    story.lease("a")
    assert story.ledger.waiting("q") == 2


# -- what the clients see


@pytest.mark.parametrize("size", [0, 1, 20_000])
def test_a_message_says_whether_it_is_whole(size: int) -> None:
    sent = content("s1-17", size)
    assert token_of(sent) == "s1-17"
    for damaged in (sent + "x", sent[:-1], sent.replace("s1", "s!"), None, 17):
        assert token_of(damaged) != "s1-17"


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"],
)
def test_an_answer_that_breaks_off_is_no_answer(answer: bytes) -> None:
    """Planted: a client that takes half an answer for a whole one."""

    async def run() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            connection = await Connection.open(*server.sockets[0].getsockname())
            with pytest.raises(Dropped):
                await connection.request(Asked("GET", "/queues/q/messages"))
            assert not connection.usable

    asyncio.run(run())


def test_whoever_was_slower_than_the_lease_waits_for_what_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted defect: quiet is counted from the receipt, so that a stall looks like a loss."""
    field = Field(process.Server(tmp_path, tmp_path), Ledger(), Report(1), lease=1.0)
    moment = 100.0
    monkeypatch.setattr(field, "now", lambda: moment)
    field.calm()
    consumer = Consumer(field, random.Random(1), "q")
    left = [[Delivery("a", "1", 1, "r", Take("q", 1, 1.0, moment), moment)] for _ in range(2)]
    given = []

    async def receive() -> list[Delivery]:
        nonlocal moment
        moment += 1.0
        given.append(moment)
        return left.pop(0) if left else []

    async def settle(_: object) -> None:
        nonlocal moment
        moment += 60.0

    monkeypatch.setattr(consumer, "receive", receive)
    monkeypatch.setattr(consumer, "settle", settle)
    asyncio.run(consumer.run())
    assert len(given) > 2


# -- the command


def run(monkeypatch: pytest.MonkeyPatch, program: str, *arguments: str) -> Result:
    """`windlass torture` with another program in place of `windlass serve`."""
    monkeypatch.setattr(process, "SERVE", (sys.executable, "-S", "-c", program))
    app = typer.Typer()
    app.command()(torture)
    return CliRunner().invoke(app, list(arguments))


def test_a_server_that_ends_is_a_violation_with_the_seed_and_its_last_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = run(monkeypatch, "print('the disk is on fire'); raise SystemExit(3)", "--seed", "77")
    assert result.exit_code == 1
    assert "seed 77" in result.output
    assert "the server ended while it started: the disk is on fire" in result.output
    kept = re.search(r"kept in\s+(\S+)", result.output)
    assert kept is not None
    shutil.rmtree(kept[1])


def test_the_report_is_json_for_those_who_ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result = run(monkeypatch, "raise SystemExit(3)", "--seed", "5", "--json", "--data-dir", f"{tmp_path}/new")
    report = json.loads(result.stdout)
    assert report["seed"] == 5
    assert report["passed"] is False
    assert report["violations"][0]["kind"] == "failed"


def test_a_directory_that_cannot_be_made_is_a_wrong_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, "", "--data-dir", "/dev/null/data")
    assert result.exit_code == 2
    assert "/dev/null/data" in result.output
