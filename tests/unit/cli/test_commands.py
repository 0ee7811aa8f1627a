"""The client commands against a scripted server: what they ask, print, and how they end."""

from __future__ import annotations

import functools
import json

import httpx
import pytest
import typer
from typer.testing import CliRunner, Result

from tests.unit.client.script import QUEUE, STATS, Script, messages, ok, problem
from windlass import cli
from windlass.cli import connect
from windlass.client import Client

EMPTY = httpx.Response(204)


class Terminal:
    """Runs commands against a script."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def run(self, script: Script, *arguments: str) -> Result:
        client = functools.partial(Client, httpx_transport=httpx.MockTransport(script))
        self.monkeypatch.setattr(connect, "Client", client)
        return CliRunner().invoke(cli.app, list(arguments))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.delenv("WINDLASS_URL", raising=False)
    monkeypatch.delenv("WINDLASS_KEY", raising=False)
    return Terminal(monkeypatch)


SENT = ok({"id": "m1", "duplicate": False}, 201)


def test_send_makes_a_string_of_what_is_typed(terminal: Terminal) -> None:
    script = Script(SENT)
    result = terminal.run(script, "send", "orders", '{"not": "json"}', "--delay", "5m", "--header", "a=b=c")
    assert (result.exit_code, result.stdout) == (0, "m1\n")
    assert script.bodies == [{"content": '{"not": "json"}', "delay": 300, "headers": {"a": "b=c"}}]


def test_send_takes_json_when_told(terminal: Terminal) -> None:
    script = Script(SENT)
    result = terminal.run(script, "queue", "send", "orders", '{"n": 1e400}', "--json-content", "--json")
    assert json.loads(result.stdout) == {"id": "m1", "duplicate": False}
    assert script.requests[0].content == b'{"content":{"n": 1e400}}'


def test_send_says_that_a_message_was_there_already(terminal: Terminal) -> None:
    script = Script(ok({"id": "m1", "duplicate": True}))
    result = terminal.run(script, "send", "orders", "a", "--dedup-id", "d")
    assert result.stdout == "m1\n"
    assert "nothing was added" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("a", "--ndjson"), "--ndjson"),
        (("a", "--envelope"), "--envelope"),
        (("-", "--dedup-id", "x"), "--dedup-id"),
        (("-", "--json-content"), "--json-content"),
        (("-", "--envelope", "--priority", "3"), "--envelope"),
        (("a", "--header", "novalue"), "--header"),
        (("a", "--priority", "10"), "--priority"),
        (("a", "--delay", "soon"), "--delay"),
    ],
)
def test_send_refuses_options_that_do_not_fit(
    terminal: Terminal, arguments: tuple[str, ...], word: str
) -> None:
    script = Script()
    result = terminal.run(script, "send", "orders", *arguments)
    assert result.exit_code == 2
    assert word in result.stderr
    assert script.requests == []


def test_json_that_is_none_is_told_before_anything_is_sent(terminal: Terminal) -> None:
    result = terminal.run(Script(), "send", "orders", "{", "--json-content")
    assert result.exit_code == 1
    assert result.stderr.startswith("windlass: this is not JSON")


def test_receive_takes_one_prints_it_and_only_then_acknowledges(terminal: Terminal) -> None:
    acks = ok({"results": [{"receipt": "r1", "status": "acknowledged"}]})
    script = Script(messages([1]), acks)
    result = terminal.run(script, "receive", "orders", "--lease", "1m")
    assert (result.exit_code, result.stdout) == (0, "work 1\n")
    assert script.bodies == [{"lease": 60, "wait": 0, "max": 1}, {"acks": [{"receipt": "r1"}]}]


def test_receive_no_ack_leaves_the_lease_and_shows_the_receipt(terminal: Terminal) -> None:
    script = Script(messages([1]))
    result = terminal.run(script, "receive", "orders", "--no-ack", "--json")
    assert json.loads(result.stdout)["receipt"] == "r1"
    assert len(script.requests) == 1


def test_receive_all_goes_on_until_the_queue_is_empty(terminal: Terminal) -> None:
    def acks(*numbers: int) -> httpx.Response:
        return ok({"results": [{"receipt": f"r{n}", "status": "acknowledged"} for n in numbers]})

    script = Script(messages([1, 2]), acks(1, 2), messages([3]), acks(3), EMPTY)
    result = terminal.run(script, "receive", "orders", "--all", "--batch", "2", "--raw")
    assert result.stdout == '"work 1"\n"work 2"\n"work 3"\n'
    assert result.exit_code == 0


def test_receive_max_counts_over_batches(terminal: Terminal) -> None:
    script = Script(messages([1, 2]), messages([3]))
    result = terminal.run(script, "receive", "orders", "--max", "3", "--batch", "2", "--no-ack")
    assert [body["max"] for body in script.bodies] == [2, 1]
    assert result.exit_code == 0


def test_receive_of_nothing_says_so_and_is_no_failure(terminal: Terminal) -> None:
    result = terminal.run(Script(EMPTY), "receive", "orders")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "No message is ready in orders.\n"


def test_receive_says_when_a_lease_had_run_out(terminal: Terminal) -> None:
    script = Script(messages([1]), ok({"results": [{"receipt": "r1", "status": "stale"}]}))
    result = terminal.run(script, "receive", "orders")
    assert "will come again" in result.stderr


def test_receive_gives_back_what_it_could_not_acknowledge(terminal: Terminal) -> None:
    script = Script(messages([1, 2]), problem(500, "internal"), ok(), ok())
    result = terminal.run(script, "receive", "orders", "--max", "2", "--batch", "2")
    assert result.exit_code == 1
    assert sorted(script.asked[2:]) == [
        "PATCH /queues/orders/receipts/r1",
        "PATCH /queues/orders/receipts/r2",
    ]


def test_status(terminal: Terminal) -> None:
    answer = {"status": "ok", "version": "0.1.0", "uptime_seconds": 7200, "queues": 2, "messages": 1234}
    script = Script(ok(answer | {"states": {"ready": 1234, "dead": 0}}))
    result = terminal.run(script, "status")
    assert "up for    2 h" in result.stdout
    assert "  ready   1,234" in result.stdout


def test_queue_create_with_settings(terminal: Terminal) -> None:
    script = Script(ok(QUEUE, 201))
    result = terminal.run(
        script, "queue", "create", "orders", "--lease-seconds", "2m", "--max-deliveries", "5",
        "--dead-letter", "dead", "--max-length", "none", "--max-message-bytes", "10",
        "--retention-seconds", "7d", "--dedup-window-seconds", "0", "--history-seconds", "1h",
        "--outcome-ttl-seconds", "60",
    )  # fmt: skip
    assert result.exit_code == 0
    assert script.bodies == [
        {
            "name": "orders", "lease_seconds": 120, "max_deliveries": 5, "dead_letter": "dead",
            "max_length": None, "max_message_bytes": 10, "retention_seconds": 604_800,
            "dedup_window_seconds": 0, "history_seconds": 3600, "outcome_ttl_seconds": 60,
        }
    ]  # fmt: skip


def test_queue_update_sends_only_what_was_named(terminal: Terminal) -> None:
    script = Script(ok(QUEUE))
    assert terminal.run(script, "queue", "update", "orders", "--dead-letter", "none").exit_code == 0
    assert script.bodies == [{"dead_letter": None}]
    assert terminal.run(Script(), "queue", "update", "orders").exit_code == 2


def test_queue_list(terminal: Terminal) -> None:
    page = ok({"queues": [QUEUE, QUEUE | {"name": "a-very-long-name-" * 6, "paused": True}], "next": None})
    result = terminal.run(Script(page), "queue", "list")
    assert "a-very-long-name-" * 6 in result.stdout, "a pipe must not have its names cut"
    assert "paused" in result.stdout
    counted = terminal.run(
        Script(ok({"queues": [QUEUE], "next": None}), ok(STATS)), "queue", "list", "--counts"
    )
    assert "READY" in counted.stdout
    listed = terminal.run(Script(ok({"queues": [QUEUE], "next": None})), "queue", "list", "--json")
    assert [queue["name"] for queue in json.loads(listed.stdout)] == ["orders"]


def test_queue_show(terminal: Terminal) -> None:
    shown = terminal.run(Script(ok(STATS)), "queue", "show", "orders")
    assert "ready           3\n" in shown.stdout
    assert (
        json.loads(terminal.run(Script(ok(STATS)), "queue", "show", "orders", "--json").stdout)["dead"] == 2
    )


def test_queue_peek(terminal: Terminal) -> None:
    script = Script(messages([1], receipt=None))
    result = terminal.run(script, "queue", "peek", "orders", "--state", "dead")
    assert "work 1" in result.stdout
    assert script.asked == ["GET /queues/orders/peek?max=10&state=dead"]
    nothing = terminal.run(Script(ok({"messages": []})), "queue", "peek", "orders")
    assert (nothing.stdout, nothing.stderr) == ("", "No message is ready in orders.\n")


@pytest.mark.parametrize("command", ["purge", "delete"])
def test_destructive_commands_do_nothing_where_nobody_can_confirm(terminal: Terminal, command: str) -> None:
    """Planted defect: taking a closed stdin for a yes empties a queue from a cron job by mistake."""
    script = Script()
    result = terminal.run(script, "queue", command, "orders")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert script.requests == []


def test_purge_delete_pause_resume_redrive(terminal: Terminal) -> None:
    assert terminal.run(Script(ok({"purged": 1234})), "queue", "purge", "q", "-y").stdout == "1,234 removed\n"
    assert terminal.run(Script(EMPTY), "queue", "delete", "q", "--yes").stdout == "q deleted\n"
    assert "queue resume q" in terminal.run(Script(ok(QUEUE)), "queue", "pause", "q").stdout
    assert terminal.run(Script(ok(QUEUE)), "queue", "resume", "q").exit_code == 0
    redriven = terminal.run(Script(ok({"redriven": 2, "done": True})), "queue", "redrive", "q", "--json")
    assert json.loads(redriven.stdout) == {"redriven": 2}


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (httpx.ConnectError("[Errno 111] Connection refused"), "Start one with: windlass serve"),
        (httpx.ReadError("reset"), "may have been done, or not"),
        (httpx.Response(200, text="<html>"), "the address of a Windlass server"),
        (problem(401, "unauthenticated", "a key is needed"), "windlass key create"),
        (problem(403, "forbidden", "This key's scopes do not cover it."), "--scope"),
        (problem(404, "queue_not_found", "no queue orders"), "windlass queue list"),
        (problem(409, "queue_in_use", "named by b"), "--dead-letter none"),
        (problem(503, "store_unavailable", "disk full"), "its log says more"),
    ],
)
def test_a_failure_is_a_sentence_and_advice(
    terminal: Terminal, failure: Exception | httpx.Response, words: str
) -> None:
    result = terminal.run(Script(failure), "queue", "delete", "orders", "--yes")
    assert result.exit_code == 1
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first.startswith("windlass: ")
    assert words in second


@pytest.mark.parametrize(
    "command",
    [
        ("send",), ("receive",), ("status",),
        *(("queue", name) for name in (
            "create", "list", "show", "update", "send", "receive", "peek", "purge", "redrive", "pause",
            "resume", "delete",
        )),
    ],
)  # fmt: skip
def test_every_help_has_an_example(terminal: Terminal, command: tuple[str, ...]) -> None:
    result = terminal.run(Script(), *command, "--help")
    assert result.exit_code == 0
    assert (
        f"  windlass {' '.join(command) if command[-1] not in ('send', 'receive') else command[-1]}"
        in result.stdout
    )


def test_completion_knows_the_queues_and_stays_silent_without_a_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = typer.Context(typer.main.get_command(cli.app))
    for step, names in ((ok({"queues": [QUEUE], "next": None}), ["orders"]), (httpx.ConnectError("no"), [])):
        client = functools.partial(Client, httpx_transport=httpx.MockTransport(Script(step)))
        monkeypatch.setattr(connect, "Client", client)
        assert connect.complete_queue(context, "or") == names
