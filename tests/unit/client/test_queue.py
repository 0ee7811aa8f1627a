"""A queue in blocking code: receive loops, settling messages, long batches."""

from __future__ import annotations

import threading

import httpx
import pytest

from tests.unit.client.script import Script, messages, ok, problem
from windlass.client import LeasedMessage, NewMessage, errors

EMPTY = httpx.Response(204)


def sent(count: int) -> httpx.Response:
    return ok({"messages": [{"id": f"m{n}", "duplicate": False} for n in range(count)]}, 201)


def test_receive_hands_out_message_after_message_and_acknowledges_each() -> None:
    script = Script(messages([1]), ok(), messages([2]), ok(), EMPTY)
    seen = []
    with script.client() as client:
        for message in client.queue("orders").receive(wait=0):
            with message:
                seen.append(message.content)
    assert seen == ["work 1", "work 2"]
    assert script.asked == [
        "POST /queues/orders/receive",
        "DELETE /queues/orders/receipts/r1",
        "POST /queues/orders/receive",
        "DELETE /queues/orders/receipts/r2",
        "POST /queues/orders/receive",
    ]
    assert script.bodies[0] == {"lease": True, "wait": 0, "max": 1}


def test_a_failing_handler_gives_its_message_back() -> None:
    """Planted defect: acknowledging in `__exit__` whatever happened loses the message."""
    script = Script(messages([1]), ok())

    def fail(message: LeasedMessage) -> None:
        raise LookupError(message.id)

    with script.client() as client:
        for message in client.queue("orders").receive(max=1, retry_delay=5):
            with pytest.raises(LookupError), message:
                fail(message)
    assert script.asked[1] == "PATCH /queues/orders/receipts/r1"
    assert script.bodies[1] == {"lease": 0, "delay": 5}
    assert message.settled


def test_the_handlers_own_error_survives_a_give_back_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    script = Script(messages([1]), problem(409, "receipt_stale"))
    with script.client() as client:
        message = client.queue("orders").receive_one()
        assert message is not None
        with pytest.raises(LookupError), message:
            raise LookupError
    assert "lease will run out by itself" in caplog.text


def test_a_message_settled_inside_is_left_alone() -> None:
    script = Script(messages([1]), ok(), messages([2]), ok())
    with script.client() as client:
        queue = client.queue("orders")
        first, second = queue.receive_one(), None
        assert first is not None
        with first:
            first.acknowledge(outcome={"total": 3})
        second = queue.receive_one()
        assert second is not None
        with second:
            second.release(delay=2)
    assert script.bodies[1] == {"outcome": {"total": 3}}
    assert script.bodies[3] == {"lease": 0, "delay": 2}
    assert len(script.requests) == 4


def test_an_outcome_of_none_is_an_outcome() -> None:
    script = Script(ok(), ok())
    with script.client() as client:
        client.queue("orders").acknowledge("r1", outcome=None)
        client.queue("orders").acknowledge("r1")
    assert script.bodies == [{"outcome": None}, None]


def test_an_acknowledgement_too_late_raises_lease_lost() -> None:
    script = Script(messages([1]), problem(409, "receipt_stale"))
    with script.client() as client:
        message = client.queue("orders").receive_one()
        assert message is not None
        with pytest.raises(errors.LeaseLost), message:
            pass
    assert len(script.requests) == 2


def test_a_message_whose_acknowledgement_got_no_answer_is_given_back_when_the_block_fails() -> None:
    script = Script(messages([1]), *[httpx.ReadError("cut")] * 3)
    with script.client() as client:
        message = client.queue("orders").receive_one()
        assert message is not None
        client.retry = type(client.retry)(limit=0)
        with pytest.raises(errors.AnswerLost), message:
            message.acknowledge()
    assert script.asked[1:] == ["DELETE /queues/orders/receipts/r1", "PATCH /queues/orders/receipts/r1"]


def test_max_limits_the_loop_and_the_last_batch() -> None:
    script = Script(messages([1, 2]), messages([3]))
    with script.client() as client:
        seen = [m.id for m in client.queue("orders").receive(max=3, batch=2)]
    assert seen == ["m1", "m2", "m3"]
    assert [body["max"] for body in script.bodies] == [2, 1]


def test_what_is_left_of_a_batch_goes_back_when_the_loop_is_left() -> None:
    """Planted defect: without it the rest of the batch waits for its lease to run out."""
    script = Script(messages([1, 2, 3]), ok(), ok())
    with script.client() as client:
        for message in client.queue("orders").receive(batch=3):
            assert message.id == "m1"
            break
    assert script.asked[1:] == [
        "PATCH /queues/orders/receipts/r2",
        "PATCH /queues/orders/receipts/r3",
    ]


def test_stop_ends_the_loop_and_gives_the_rest_back() -> None:
    stop = threading.Event()
    script = Script(messages([1, 2]), ok())
    with script.client() as client:
        for _ in client.queue("orders").receive(batch=2, stop=stop):
            stop.set()
    assert script.asked[1:] == ["PATCH /queues/orders/receipts/r2"]


def test_idle_ends_the_loop_when_nothing_came_for_so_long() -> None:
    script = Script()

    def after(seconds: float, answer: httpx.Response) -> None:
        def step(_request: httpx.Request) -> httpx.Response:
            script.clock.advance(seconds)
            return answer

        script.steps.append(step)

    after(4, messages([1]))
    after(20, EMPTY)
    after(10, EMPTY)
    with script.client() as client:
        queue = client.queue("orders")
        for _ in queue.receive(wait=20, idle=30):
            script.clock.advance(100)
    assert [body["wait"] for body in script.bodies] == [20, 20, 10], "quiet begins after the work, not before"


def test_an_empty_answer_before_its_time_is_no_reason_to_storm_the_server() -> None:
    """Planted defect: a stopping server answers long polls at once; asking again at once is a storm."""
    script = Script(EMPTY, EMPTY, messages([1]))
    with script.client() as client:
        next(iter(client.queue("orders").receive(wait=20)))
    assert script.pauses == [0.5, 0.5]


def test_handle_acknowledges_gives_back_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    script = Script(messages([1]), ok(), messages([2]), ok(), EMPTY)

    def work(message: LeasedMessage) -> None:
        if message.id == "m1":
            raise LookupError("no such order")

    with script.client() as client:
        client.queue("orders").handle(work, wait=0)
    assert script.asked[1] == "PATCH /queues/orders/receipts/r1"
    assert script.asked[3] == "DELETE /queues/orders/receipts/r2"
    assert "no such order" in caplog.text


def test_handle_runs_as_many_at_once_as_it_is_told() -> None:
    meeting = threading.Barrier(3, timeout=60)
    answers = {"POST": iter([messages([1]), messages([2]), messages([3])])}

    def server(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return next(answers["POST"], EMPTY)
        return ok()

    script = Script(*[server] * 7)
    with script.client() as client:
        client.queue("orders").handle(lambda _: meeting.wait(), concurrency=3, wait=0)
    assert sum(asked.startswith("DELETE") for asked in script.asked) == 3


def test_send_many_cuts_into_batches_and_keeps_the_order() -> None:
    script = Script(sent(1000), sent(500))
    with script.client() as client:
        results = client.queue("orders").send_many(range(1500))
    assert len(results) == 1500
    assert [message["content"] for body in script.bodies for message in body["messages"]] == list(range(1500))


def test_send_many_tells_what_is_safe_when_a_batch_fails() -> None:
    """Planted defect: without `sent` a caller who repeats everything duplicates the first batches."""
    script = Script(sent(1000), problem(422, "invalid", field="messages[3].priority"))
    with script.client() as client, pytest.raises(errors.InvalidRequest) as caught:
        client.queue("orders").send_many([NewMessage(n, priority=1) for n in range(1100)])
    assert len(caught.value.sent) == 1000
    assert caught.value.field == "messages[3].priority"


def test_acknowledge_many_takes_messages_and_receipts() -> None:
    results = [{"receipt": "r1", "status": "acknowledged"}, {"receipt": "x", "status": "gone"}]
    script = Script(messages([1]), ok({"results": results}))
    with script.client() as client:
        queue = client.queue("orders")
        message = queue.receive_one()
        assert message is not None
        with message:
            answer = queue.acknowledge_many([message, "x"])
    assert [result.status for result in answer] == ["acknowledged", "gone"]
    assert script.bodies[1] == {"acks": [{"receipt": "r1"}, {"receipt": "x"}]}


def test_take_asks_without_a_lease() -> None:
    script = Script(messages([1], receipt=None), EMPTY)
    with script.client() as client:
        taken = client.queue("orders").take(max=5, wait=2)
        assert client.queue("orders").take() == []
    assert [message.content for message in taken] == ["work 1"]
    assert script.bodies[0] == {"wait": 2, "max": 5}


def test_a_batch_size_out_of_range_is_told_before_anything_is_asked() -> None:
    script = Script()
    with script.client() as client, pytest.raises(errors.NotSent):
        next(iter(client.queue("orders").receive(batch=1001)))
