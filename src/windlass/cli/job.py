"""windlass job: give a command to a runner, follow it, look at it, cancel it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from windlass.cli.connect import Json, Key, Server, connect, fail, termination_as_interrupt
from windlass.cli.durations import parse_seconds
from windlass.cli.job_output import Output
from windlass.cli.jobs import jobs, what_of
from windlass.cli.output import note, number, print_fields, print_json, print_table, shown
from windlass.cli.runners import say_if_nobody
from windlass.cli.sizes import parse_kib
from windlass.client import Client, Retry, WindlassError
from windlass.client.call import Call
from windlass.client.errors import Gone
from windlass.client.transport import DEFAULT_URL
from windlass.client.work_calls import create_job
from windlass.client.work_values import JobCreated, JobInfo

app = typer.Typer(
    help="Give a command to a runner, follow it, look at it, cancel it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

NOT_RUN = 125
"""Exit status where it was not the command that failed; that of `env` and of container programs, too."""
TIMED_OUT = 124
"""Exit status where the command met its time limit; that of `timeout`."""
PATIENCE = Retry(limit=120.0)
"""How long a server that went away is waited for, once the job is in its hands."""
_LONGEST = 3600.0

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, as windlass jobs shows it.")]


@app.command(context_settings={"allow_interspersed_args": False})
def run(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="What to run, and its arguments.")],
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="LABEL", help="The runner has to offer it; may be repeated."),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="NAME=VALUE", help="In its environment; may be repeated."),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(
            "--file",
            metavar="LOCAL[:PATH]",
            help="A text file from here, put where it starts, or at PATH below that; may be repeated.",
        ),
    ] = None,
    stdin: Annotated[
        str | None, typer.Option("--stdin", metavar="FILE|-", help="A text file, or -, that it reads.")
    ] = None,
    time: Annotated[
        float | None,
        typer.Option(parser=parse_seconds, metavar="TIME", help="End it after so long.", show_default="1h"),
    ] = None,
    memory: Annotated[
        int | None,
        typer.Option(parser=parse_kib, metavar="SIZE", help="Memory that it may use.", show_default="1G"),
    ] = None,
    priority: Annotated[int, typer.Option(metavar="0-9", min=0, max=9, help="9 is taken first.")] = 0,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Print the job's id and do not wait.")
    ] = False,
    server: Server = DEFAULT_URL,
    key: Key = None,
    json: Json = False,
) -> None:
    """Run a command on whichever runner asks first, and end as it does.

    It runs in a box of its own without network, which is thrown away afterwards. What it prints comes back as
    it prints it, stdout and stderr in one, as text. Ctrl-C cancels it.

    The exit status is the command's; 124 where it met its time limit; 125 where it was not the command that
    failed: no server, no such label, cancelled by others, given up after its runners died.

    \b
    Examples:
      windlass job run -- python3 -c 'print(6 * 7)'
      windlass job run --file main.c --time 1m -- sh -c 'gcc main.c -o main && ./main'
      windlass job run --label gpu --env EPOCHS=3 --file train.py -- python3 train.py
      job=$(windlass job run --detach -- make test) && windlass job show $job
    """
    wanted: dict[str, Any] = {"argv": command, "env": _environment(env), "files": _files(file)}
    if stdin is not None:
        wanted["stdin"] = _text(stdin, "--stdin")
    if time is not None:
        if not 0.001 <= time <= _LONGEST:
            raise typer.BadParameter("it is from 1ms to 1h", param_hint="--time")
        wanted["time_limit"] = round(time * 1000)
    if memory is not None:
        wanted["memory_limit"] = memory
    try:
        with connect(server, key) as client, termination_as_interrupt():
            status = _run(client, wanted, label or [], priority, detach, json)
    except typer.Exit as end:
        raise typer.Exit(NOT_RUN if end.exit_code == 1 else end.exit_code) from None
    raise typer.Exit(status)


def _run(
    client: Client, command: dict[str, Any], labels: Sequence[str], priority: int, detach: bool, json: bool
) -> int:
    call = create_job(command, labels, priority, None)
    try:
        job_id = client.run(call).job_id
        client.retry = PATIENCE
        if detach:
            if json:
                print_json({"job_id": job_id})
            else:
                print(job_id)
            return 0
        if sys.stderr.isatty():
            note(f"Job {job_id}")
        say_if_nobody(client, labels)
        output = Output((lambda _: None) if json else _write)
        _follow(client, job_id, output)
        job = client.jobs.show(job_id)
        if json:
            print_json(job)
        return _status(job, output, quiet=json)
    except (KeyboardInterrupt, BrokenPipeError):
        _cancel(client, call)
        raise


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _follow(client: Client, job_id: str, output: Output) -> None:
    """Print what the job prints, until it is over."""
    begun = missed = False
    for event in client.jobs.events(job_id):
        match event.data:
            case {"event": "started", "runner": str(runner)}:
                if begun:
                    note(f"windlass: {shown(runner)} begins it anew")
                    output.begin_anew()
                begun = True
            case {"event": "given_back", "reason": str(reason)}:
                note(f"windlass: its runner gave it back: {shown(reason)}")
            case {"event": "output", "truncated": True}:
                note("windlass: it prints more than is passed on; the end of it will follow")
                output.miss()
            case {"event": "lost"}:
                if not missed:
                    note("windlass: some of its output was lost on the way")
                missed = True
                output.miss()
            case {"event": "output", "text": str(text)}:
                output.add(text)


def _status(job: JobInfo, output: Output, *, quiet: bool) -> int:
    """The exit status that says how it went; prints what was not printed yet."""
    case = case_of(job)
    if case is None:
        note(f"windlass: {why_not_done(job)}")
        return NOT_RUN
    rest = output.rest(case["stdout"])
    if not quiet:
        if rest.missing:
            note("windlass: not all of its output came; this is the end of it")
        _write(rest.text)
    verdict, code = case["status"], int(case["exitCode"])
    if verdict == "AC":
        return 0
    if verdict == "JE":
        note(f"windlass: the runner could not run it. {shown(case['stderr'])}")
        return NOT_RUN
    if verdict == "TLE":
        note("windlass: it met its time limit")
        return TIMED_OUT
    if verdict == "MLE":
        note("windlass: it met its memory limit")
    return code if 1 <= code <= 255 else 1


def case_of(job: JobInfo) -> dict[str, Any] | None:
    """The one case of a command's result; None where there is none."""
    match job.result:
        case {
            "tasks": [
                [{"stdout": str(), "stderr": str(), "status": str(), "exitCode": int()} as case, *_],
                *_,
            ]
        }:
            return dict(case)
    return None


def why_not_done(job: JobInfo) -> str:
    """Why a job that is over has no result, in a sentence."""
    if job.state != "failed":
        return f"job {job.job_id} is {job.state}"
    reasons = [str(event["reason"]) for event in job.events if event.get("reason")]
    why = f": {shown(reasons[-1])}" if reasons else ""
    return f"job {job.job_id} failed after {job.attempts} attempts{why}"


def _cancel(client: Client, call: Call[JobCreated]) -> None:
    """Cancel on the way out: whatever goes wrong is said, and nothing more.

    The job is asked for once more: its id may have been on the way here when the signal came, and the same
    call makes the same job.
    """
    try:
        client.retry = Retry(limit=5.0)
        job_id = client.run(call).job_id
        client.jobs.cancel(job_id)
        note(f"windlass: job {job_id} is cancelled")
    except Gone:
        pass  # it was over already
    except WindlassError as error:
        note(f"windlass: the job could not be cancelled: {error}")


def _environment(pairs: list[str] | None) -> dict[str, str]:
    found = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--env")
        found[name] = value
    return found


def _files(named: list[str] | None) -> dict[str, str]:
    found = {}
    for text in named or []:
        local, colon, path = text.rpartition(":")
        if not colon or Path(text).is_file():
            local, path = text, Path(text).name
        found[path] = _text(local, "--file")
    return found


def _text(name: str, option: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{name} is not UTF-8 text", param_hint=option) from None
    except OSError as error:
        raise typer.BadParameter(f"{name} cannot be read: {error.strerror}", param_hint=option) from None


@app.command()
def show(job_id: JobId, server: Server = DEFAULT_URL, key: Key = None, json: Json = False) -> None:
    """Show a job: what it is, what happened to it, and the end of what it printed.

    \b
    Examples:
      windlass job show jb_AAAAAAAAAAG8yl3Rz6k0vQ1f
      windlass job show jb_AAAAAAAAAAG8yl3Rz6k0vQ1f --json | jq .result
    """
    with connect(server, key) as client:
        job = client.jobs.show(job_id)
        if json:
            print_json(job)
            return
        case = case_of(job) if job.submission_id is None else None
        print_fields(
            [
                ("job", job.job_id),
                ("state", job.state),
                ("what", what_of(job)),
                ("labels", ",".join(job.labels) or "-"),
                ("priority", number(job.priority)),
                ("attempts", number(job.attempts)),
                *([("runner", job.runner)] if job.runner else []),
                *([("verdict", case["status"]), ("exit status", str(case["exitCode"]))] if case else []),
            ]
        )
        if job.events:
            print()
            print_table(("WHEN", "WHAT", ""), [_event_row(event) for event in job.events])
        if case and case["stdout"]:
            print(f"\n{shown(case['stdout'], lines=True).rstrip()}")


def _event_row(event: dict[str, Any]) -> tuple[str, str, str]:
    more = [str(event[name]) for name in ("by", "reason", "omitted") if event.get(name)]
    return str(event.get("at", "")), str(event.get("event", "")), shown(": ".join(more))


@app.command()
def cancel(job_id: JobId, server: Server = DEFAULT_URL, key: Key = None, json: Json = False) -> None:
    """Cancel a job. A runner that has it stops it at its next heartbeat.

    \b
    Example:
      windlass job cancel jb_AAAAAAAAAAG8yl3Rz6k0vQ1f
    """
    with connect(server, key) as client:
        try:
            client.jobs.cancel(job_id)
        except Gone:
            fail(f"job {job_id} is over already", f"See how it ended: windlass job show {job_id}")
        if json:
            print_json({"cancelled": job_id})
        else:
            print(f"{job_id} is cancelled")


app.command("list")(jobs)
