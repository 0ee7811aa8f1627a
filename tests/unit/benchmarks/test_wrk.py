"""wrk's figures are read, and nothing that went wrong is taken for a figure."""

from __future__ import annotations

import pytest

from bench.processes import BenchmarkError
from bench.wrk import parse

FIGURES = (
    "BENCH requests=%d microseconds=2000000 p50=1500 p99=9000 connect=0 read=%d write=0 timeout=0 status=%d"
)


def test_reads_the_line_among_the_rest() -> None:
    run = parse("Running 2s test\n" + FIGURES % (30_000, 0, 0) + "\nRequests/sec: 15000\n")
    assert (run.requests, run.rate, run.p50_ms, run.p99_ms) == (30_000, 15_000.0, 1.5, 9.0)


def test_no_line_is_an_error() -> None:
    with pytest.raises(BenchmarkError, match="no figures"):
        parse("unable to connect")


@pytest.mark.parametrize(("read", "status", "name"), [(1, 0, "read"), (0, 2, "status")])
def test_any_error_is_an_error(read: int, status: int, name: str) -> None:
    """Planted: answers of 503, which wrk counts as completed requests."""
    with pytest.raises(BenchmarkError, match=name):
        parse(FIGURES % (30_000, read, status))


def test_absence_is_what_all_answers_have_to_say_where_it_is_meant() -> None:
    """Planted: one product that is there among those that are not."""
    assert parse(FIGURES % (30_000, 0, 30_000), absent=True).requests == 30_000
    with pytest.raises(BenchmarkError, match="status"):
        parse(FIGURES % (30_000, 0, 29_999), absent=True)


def test_a_receive_that_finds_nothing_is_an_error() -> None:
    with pytest.raises(BenchmarkError, match="7 receives found nothing"):
        parse(FIGURES % (30_000, 0, 0) + " empty=7")


def test_counts_leases_and_acknowledgements() -> None:
    run = parse(FIGURES % (200, 0, 0) + " leased=110 acknowledged=90 acknowledging=95 messages=900")
    assert (run.leased, run.acknowledged, run.messages) == (110, 90, 900)


def test_an_answer_that_is_neither_lease_nor_acknowledgement_is_an_error() -> None:
    with pytest.raises(BenchmarkError, match="200 answers"):
        parse(FIGURES % (200, 0, 0) + " leased=110 acknowledged=89 acknowledging=95")


def test_more_204_than_acknowledgements_is_an_error() -> None:
    """Planted: a queue that runs dry, so that leases are answered 204 like acknowledgements."""
    with pytest.raises(BenchmarkError, match="a lease found nothing"):
        parse(FIGURES % (200, 0, 0) + " leased=90 acknowledged=110 acknowledging=90")
