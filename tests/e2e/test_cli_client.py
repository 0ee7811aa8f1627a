"""The client commands as a user runs them: real processes, real pipes, real signals."""

from __future__ import annotations

import itertools
import json
import os
import pty
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable

import pytest

from tests.harness import WINDLASS, ServerProcess, clean_environment, free_port, run_cli, until
from windlass.client import Client

_numbers = itertools.count(1)

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def queue(server: ServerProcess) -> str:
    """The name of a new queue."""
    name = f"cli-{next(_numbers)}"
    assert run_cli("queue", "create", name, server=server.url).returncode == 0
    return name


@pytest.fixture
def run(server: ServerProcess) -> Run:
    """Run a command that must succeed."""

    def succeed(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        done = run_cli(*arguments, server=server.url, text=text)
        assert done.returncode == 0, done.stderr
        return done

    return succeed


def start(
    server: ServerProcess, *arguments: str, stdin: int | None = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [str(WINDLASS), *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment({"WINDLASS_URL": server.url}),
    )


def counts(server: ServerProcess, queue: str) -> dict[str, int]:
    """How many messages are in each state, those states only that have any."""
    with Client(server.url) as client:
        stats = client.queue(queue).show()
    all_states = {"ready": stats.ready, "leased": stats.leased, "delayed": stats.delayed, "dead": stats.dead}
    return {state: count for state, count in all_states.items() if count}


def test_a_session(server: ServerProcess, run: Run, queue: str) -> None:
    sent = run("send", queue, "two ropes").stdout.strip()
    run("send", queue, '{"item": "sail"}', "--json-content", "--priority", "9", "--header", "a=b")
    assert "two ropes" in run("queue", "peek", queue).stdout
    first = json.loads(run("receive", queue, "--json").stdout)
    assert (first["content"], first["priority"], first["headers"]) == ({"item": "sail"}, 9, {"a": "b"})
    assert run("receive", queue).stdout == "two ropes\n"
    empty = run("receive", queue)
    assert (empty.stdout, empty.stderr) == ("", f"No message is ready in {queue}.\n")
    assert sent
    assert counts(server, queue) == {}
    assert ["status", "ok"] in [line.split() for line in run("status").stdout.splitlines()]
    assert queue in run("queue", "list").stdout
    assert "paused" in run("queue", "pause", queue).stdout
    assert "(paused)" in run("queue", "show", queue).stdout
    run("queue", "resume", queue)
    assert (
        json.loads(run("queue", "update", queue, "--lease-seconds", "2m", "--json").stdout)["lease_seconds"]
        == 120
    )
    run("send", queue, "a")
    assert run("queue", "purge", queue, "--yes").stdout == "1 removed\n"
    assert run("queue", "delete", queue, "--yes").stdout == f"{queue} deleted\n"


def test_a_pipe_of_lines_arrives_whole_and_in_order(run: Run, queue: str) -> None:
    lines = [f"line {number}" for number in range(2500)]
    done = run("send", queue, "-", text="\n".join(lines))
    assert done.stdout == ""
    assert done.stderr.startswith("2,500 messages sent in ")
    received = run("receive", queue, "--all", "--batch", "500")
    assert received.stdout.splitlines() == lines


def test_ndjson_moves_from_queue_to_queue_byte_for_byte(run: Run, queue: str) -> None:
    text = '{"b" : 1,"a":1e400}\n1180591620717411303424\n\n"two\\nlines"\n[]\n'
    summary = json.loads(run("send", queue, "-", "--ndjson", "--json", text=text).stdout)
    assert (summary["sent"], summary["duplicates"]) == (4, 0)
    raw = run("receive", queue, "--all", "--raw").stdout
    assert raw == text.replace("\n\n", "\n")


def test_whole_messages_from_a_pipe(run: Run, queue: str) -> None:
    lines = [{"content": "low", "priority": 0}, {"content": "high", "priority": 9, "dedup_id": "x"}]
    text = "".join(json.dumps(line) + "\n" for line in [*lines, lines[1]])
    done = run("send", queue, "-", "--envelope", text=text)
    assert "3 messages sent" in done.stderr
    assert "1 of them known already" in done.stderr
    assert run("receive", queue, "--all").stdout == "high\nlow\n"


def test_a_bad_line_stops_the_pipe_and_is_told_by_its_number(
    server: ServerProcess, run: Run, queue: str
) -> None:
    done = run_cli(
        "send", queue, "-", "--ndjson", "--batch", "2", server=server.url, text="1\n2\n3\nfour\n5\n"
    )
    assert done.returncode == 1
    assert done.stderr.startswith("windlass: line 4: this is not JSON")
    assert "3 messages sent" in done.stderr
    assert "The first line that is not in the queue is line 4." in done.stderr
    assert run("receive", queue, "--all").stdout == "1\n2\n3\n"


def test_a_refused_batch_says_which_lines_are_in(server: ServerProcess, run: Run, queue: str) -> None:
    run("queue", "update", queue, "--max-message-bytes", "10")
    text = "a\nb\nc\n" + "x" * 50 + "\ne\n"
    done = run_cli("send", queue, "-", "--batch", "2", "--json", server=server.url, text=text)
    assert done.returncode == 1
    assert json.loads(done.stdout) | {"seconds": 0} == {
        "sent": 2, "duplicates": 0, "seconds": 0, "first_unsent_line": 3, "in_doubt_to_line": None,
    }  # fmt: skip
    assert run("receive", queue, "--all").stdout == "a\nb\n"


def test_lines_whose_fate_is_not_known_are_told_to_be_in_doubt() -> None:
    """Planted defect: calling them unsent invites the user to send them again, and some come twice."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def fail() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")
                while connection.recv(1 << 16):
                    pass

        server = threading.Thread(target=fail)
        server.start()
        done = run_cli("send", "orders", "-", server=url, text="a\nb\nc\n")
        server.join()
    assert done.returncode == 1
    assert "It is not known whether lines 1 to 3 are in the queue." in done.stderr


def test_lines_are_sent_while_the_pipe_is_still_open(server: ServerProcess, queue: str) -> None:
    """Planted defect: waiting for a full batch would hold back a line of `tail -f` for ever."""
    process = start(server, "send", queue, "-")
    assert process.stdin is not None
    with process:
        process.stdin.write(b"first\n")
        process.stdin.flush()
        until(lambda: counts(server, queue) == {"ready": 1}, what="the first line")
        process.stdin.close()
        assert process.wait(60) == 0


def test_a_pipe_outlives_a_kill_of_the_server_and_sends_each_line_once(own_server: ServerProcess) -> None:
    """Planted defect: repeating a batch without its key stores some lines twice."""
    assert run_cli("queue", "create", "lines", server=own_server.url).returncode == 0
    process = start(own_server, "send", "lines", "-", "--batch", "10")
    assert process.stdin is not None
    with process:
        for part in range(4):
            numbers = range(part * 500, part * 500 + 500)
            process.stdin.write("".join(f"{number}\n" for number in numbers).encode())
            process.stdin.flush()
            until(lambda part=part: counts(own_server, "lines").get("ready", 0) > part * 500, what="progress")  # type: ignore[misc]
            own_server.kill()
            own_server.start()
        process.stdin.close()
        assert process.stderr is not None
        assert "2,000 messages sent" in process.stderr.read().decode()
        assert process.wait(60) == 0
    received = run_cli("receive", "lines", "--all", "--batch", "1000", server=own_server.url)
    assert received.stdout.splitlines() == [str(number) for number in range(2000)]


def test_follow_prints_as_messages_come_and_ends_cleanly_with_ctrl_c(
    server: ServerProcess, run: Run, queue: str
) -> None:
    process = start(server, "receive", queue, "--follow", stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    with process:
        for text in ("one", "two"):
            run("send", queue, text)
            assert process.stdout.readline() == f"{text}\n".encode()
        until(lambda: counts(server, queue) == {}, what="both acknowledged")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_messages_that_could_not_be_written_go_back(
    server: ServerProcess, run: Run, queue: str, number: signal.Signals
) -> None:
    """Planted defect: acknowledging before the line is out loses what a stuck reader never got."""
    big = json.dumps("x" * 100_000)
    run("send", queue, "-", "--ndjson", text=f"{big}\n{big}\n{big}\n")
    process = start(server, "receive", queue, "--all", "--batch", "3", stdin=subprocess.DEVNULL)
    with process:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 60)[0], "it has begun to write, and the pipe is full"
        assert counts(server, queue) == {"leased": 3}
        process.send_signal(number)
        until(lambda: counts(server, queue) == {"ready": 3}, what="all given back")
        process.stdout.close()
        assert process.wait(60) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_reader_that_goes_away_ends_it_quietly(server: ServerProcess, run: Run, queue: str) -> None:
    run("send", queue, "-", text="".join(f"{number}\n" for number in range(100)))
    process = start(server, "receive", queue, "--follow", stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""
    left = counts(server, queue)
    assert set(left) == {"ready"}, "nothing stays leased"
    assert left["ready"] >= 90


def test_no_ack_shows_the_receipt_and_leaves_the_lease(server: ServerProcess, run: Run, queue: str) -> None:
    run("send", queue, "a")
    message = json.loads(run("receive", queue, "--no-ack", "--lease", "10m", "--json").stdout)
    assert message["receipt"]
    assert counts(server, queue) == {"leased": 1}


def test_dead_messages_are_seen_and_brought_back(server: ServerProcess, run: Run, queue: str) -> None:
    run("queue", "update", queue, "--max-deliveries", "1")
    run("send", queue, "a")
    run("receive", queue, "--no-ack", "--lease", "100ms")
    until(lambda: counts(server, queue) == {"dead": 1}, what="the message is dead")
    assert "a\n" in run("queue", "peek", queue, "--state", "dead").stdout
    assert run("queue", "redrive", queue).stdout == "1 ready again\n"
    assert run("receive", queue).stdout == "a\n"


@pytest.mark.parametrize("command", ["status", "receive q", "queue list", "send q a", "send q -"])
def test_without_a_server_it_says_so_and_fails(command: str) -> None:
    done = run_cli(*command.split(), "--server", f"http://127.0.0.1:{free_port()}", text="a\n")
    assert done.returncode == 1
    assert done.stderr.startswith("windlass: cannot reach http://127.0.0.1:")
    assert "Traceback" not in done.stderr
    assert "not known" not in done.stderr, "nothing was sent, and that is certain"


def test_an_unknown_queue_and_a_wrong_command_line(server: ServerProcess) -> None:
    unknown = run_cli("send", "nobody", "a", server=server.url)
    assert unknown.returncode == 1
    assert "windlass queue create" in unknown.stderr
    assert run_cli("receive", server=server.url).returncode == 2
    assert run_cli("receive", "q", "--lease", "soon", server=server.url).returncode == 2


def test_shell_completion_offers_the_queues(server: ServerProcess, queue: str) -> None:
    words = f"windlass queue show {queue[:-1]}"
    environment = {"_WINDLASS_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "3"}
    done = run_cli(server=server.url, environment=environment)
    assert queue in done.stdout.split()


def test_a_terminal_is_asked_before_a_purge(server: ServerProcess, run: Run, queue: str) -> None:
    run("send", queue, "a")
    for answer, status, left in ((b"n\n", 1, {"ready": 1}), (b"y\n", 0, {})):
        terminal, side = pty.openpty()
        process = start(server, "queue", "purge", queue, stdin=side)
        os.close(side)
        with process:
            assert process.stderr is not None
            assert select.select([process.stderr], [], [], 60)[0], "the question"
            os.write(terminal, answer)
            assert process.wait(60) == status
        os.close(terminal)
        assert counts(server, queue) == left
