"""What wrk was answered must be what happened to the queue."""

from __future__ import annotations

import pytest

from bench.measure import verify
from bench.processes import BenchmarkError
from bench.wrk import WrkRun


def answered(requests: int, acknowledged: int = 0) -> WrkRun:
    leased = requests - acknowledged if acknowledged else 0
    return WrkRun(requests, 1.0, 1.0, 1.0, leased=leased, acknowledged=acknowledged, messages=acknowledged)


@pytest.mark.parametrize("under_way", [0, 4])
def test_requests_under_way_at_the_end_may_have_happened(under_way: int) -> None:
    verify("send", answered(100), 10, 110 + under_way, connections=4, batch=1)
    verify("receive", answered(100), 1000, 900 - under_way, connections=4, batch=1)
    verify("lease_ack", answered(200, 100), 1000, 900 - under_way, connections=4, batch=1)
    verify("send_batch", answered(10), 0, 1000 + under_way * 100, connections=4, batch=100)
    run = WrkRun(20, 1.0, 1.0, 1.0, leased=10, acknowledged=10, messages=95)
    verify("lease_ack_batch", run, 1000, 905 - under_way * 10, connections=4, batch=10)


@pytest.mark.parametrize("after", [109, 115])
def test_sends_that_are_lost_or_doubled_are_an_error(after: int) -> None:
    """Planted: an answer before the commit, and a send that is written twice."""
    with pytest.raises(BenchmarkError, match="100 messages answered"):
        verify("send", answered(100), 10, after, connections=4, batch=1)


def test_a_receive_without_a_message_is_an_error() -> None:
    """Planted: 204 from a queue that is not empty; wrk counts it as an answer."""
    with pytest.raises(BenchmarkError, match="changed by 99"):
        verify("receive", answered(100), 1000, 901, connections=4, batch=1)


def test_an_acknowledgement_of_ten_that_ends_nine_is_an_error() -> None:
    """Planted: a batch in which one fails, under an answer of 200."""
    run = WrkRun(20, 1.0, 1.0, 1.0, leased=10, acknowledged=10, messages=100)
    with pytest.raises(BenchmarkError, match="100 messages answered, but the queue changed by 99"):
        verify("lease_ack_batch", run, 1000, 901, connections=4, batch=10)


def test_a_queue_that_ran_dry_is_an_error() -> None:
    with pytest.raises(BenchmarkError, match="ran dry"):
        verify("receive", answered(100), 100, 0, connections=4, batch=1)
