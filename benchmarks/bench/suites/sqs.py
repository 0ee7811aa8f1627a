"""Windlass through its SQS face, beside its own HTTP face and beside others that speak SQS.

All of them are driven by wrk with requests of the JSON protocol (the HTTP face with its own), messages of 100
bytes, on connections that stay open. Every rate is in messages:

    send           SendMessage
    receive        ReceiveMessage, then DeleteMessage; over HTTP a lease and its acknowledgement
    send_batch     SendMessageBatch of ten
    receive_batch  ReceiveMessage of ten, then DeleteMessageBatch of what came
    boto3          one process of boto3, one call after the other: against Windlass, and against bare ASGI
                   that answers the bytes that Windlass has answered before

Windlass syncs its disk before it answers. `signed` is Windlass with authentication on, which verifies the
signature of every request.

Parts, for --only: the five above, and of the servers sqs, signed, http, moto, localstack.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from bench.api import content
from bench.measure import WARM_UP_SECONDS, Measured, measure
from bench.peers import operations_a_second
from bench.processes import BenchmarkError, scratch_directory
from bench.results import Options, Result, begin, finish
from bench.servers import Bare, Windlass, windlass
from bench.sqs import LEASE, Sqs, Subject, measure_sqs
from bench.sqs_peers import LOCALSTACK, MOTO, PEERS, peer_subject, python_of, version_of

BATCH = 10
CLIENT = Path(__file__).resolve().parents[1] / "sqs_boto3.py"


class Operation(NamedTuple):
    name: str
    """Of windlass.lua and sqs.lua."""
    metric: str
    batch: int
    fastest: int
    """Messages a second that Windlass does not reach."""


OPERATIONS = {
    "send": Operation("send", "send", 1, 0),
    "receive": Operation("lease_ack", "receive + delete", 1, 20_000),
    "send_batch": Operation("send_batch", "send ten", BATCH, 0),
    "receive_batch": Operation("lease_ack_batch", "receive + delete ten", BATCH, 100_000),
}
BOTO3 = "boto3"
SQS, SIGNED, HTTP = "Windlass, SQS", "Windlass, SQS, signed", "Windlass, HTTP"
VARIANTS = {
    "sqs": SQS,
    "http": HTTP,
    MOTO.name: MOTO.name,
    LOCALSTACK.name: LOCALSTACK.name,
    "signed": SIGNED,
}
"""In the order in which they take turns."""
OTHERS = frozenset(peer.name for peer in PEERS)
AIMS = {HTTP: 0.8, MOTO.name: 50, LOCALSTACK.name: 10}
_BOTO3_FASTEST = 3_000
_THROUGH, _CONSTANT = "Windlass", "the same bytes"


def run(options: Options) -> None:
    result = begin("sqs", options)
    result.notes.append("every rate is in messages; a receive and its deletion are one")
    parts = chosen(options.only, [*OPERATIONS, BOTO3])
    variants = chosen(options.only, list(VARIANTS)) if parts != [BOTO3] else []
    for peer in PEERS:
        if peer.name in variants:
            try:
                result.settings["versions"][peer.package] = version_of(peer)
                result.notes.append(f"{peer.name}: {peer.remark}")
            except BenchmarkError as error:
                result.notes.append(f"{peer.name} is left out: {error}")
                variants.remove(peer.name)
    for part in parts:
        if part == BOTO3:
            end_to_end(result)
            continue
        for connections in options.connections:
            beside(result, OPERATIONS[part], [VARIANTS[name] for name in variants], connections)
    finish(result)


def chosen(only: tuple[str, ...], names: list[str]) -> list[str]:
    """Those of `names` that --only names; all of them where it names none of these."""
    return [name for name in names if name in only] or names


def beside(result: Result, operation: Operation, variants: list[str], connections: int) -> None:
    """Rounds of one operation, each server fresh. What fails in one of the others is told in a note."""
    metric = f"{operation.metric} at {connections}"
    for round_ in range(1, result.options.rounds + 1):
        for variant in variants:
            try:
                found = measured(variant, operation, result.options, connections)
            except BenchmarkError as error:
                if variant not in OTHERS:
                    raise
                result.notes.append(f"{metric}: {variant} failed in round {round_}: {str(error)[:300]}")
                continue
            result.add(metric, variant, round_, found.rate, **found.details)
    for variant, aim in AIMS.items():
        result.ratio(f"{metric}: {SQS} / {variant}", (metric, SQS), (metric, variant), aim=aim)
    result.ratio(f"{metric}: {SIGNED} / {SQS}", (metric, SIGNED), (metric, SQS))


def measured(variant: str, operation: Operation, options: Options, connections: int) -> Measured:
    """One run against a fresh server, in messages a second."""
    for peer in PEERS:
        if variant == peer.name:
            with peer_subject(peer, options.scratch) as subject:
                fastest = peer.fastest if operation.batch == 1 else peer.fastest_batched
                return measure_sqs(
                    subject,
                    operation.name,
                    replace(options, seconds=max(options.seconds, peer.least_seconds)),
                    connections=min(connections, peer.most_connections),
                    batch=operation.batch,
                    fastest=fastest,
                )
    with windlass(options.windlass, options.scratch) as server:
        if variant == HTTP:
            return over_http(server, operation, options, connections)
        return measure_sqs(
            subject_of(server, signed=variant == SIGNED),
            operation.name,
            options,
            connections=connections,
            batch=operation.batch,
            fastest=operation.fastest,
        )


def over_http(server: Windlass, operation: Operation, options: Options, connections: int) -> Measured:
    """The same by the protocol of the house; what `measure` tells of requests is told of messages here."""
    found = measure(
        server,
        operation.name,
        options,
        connections=connections,
        batch=operation.batch,
        fastest=operation.fastest,
    )
    rate = found.acknowledged or found.rate * operation.batch
    each = found.rate / rate
    details = {
        name: value * each if name.endswith("cpu_us") else value for name, value in found.details.items()
    }
    return replace(found, rate=rate, details=details)


def subject_of(server: Windlass, *, signed: bool) -> Subject:
    """A Windlass that is driven through SQS, checked to send, receive and delete; with `signed` by a key."""
    sqs = Sqs(server.port, server.lock() if signed else None)
    sqs.find()
    sqs.check()
    if signed:
        sqs.check_refusal()

    def held() -> int:
        return sum(server.api.counts("bench").values())

    return Subject(sqs, server.process, lambda messages: server.api.fill("bench", messages), held)


def end_to_end(result: Result) -> None:
    """Rounds of one process of boto3 against Windlass, and against its answers."""
    options = result.options
    try:
        result.settings["versions"][BOTO3] = version_of(replace(MOTO, package=BOTO3))
    except BenchmarkError as error:
        result.notes.append(f"{BOTO3} is left out: {error}")
        return
    for name in ("send", "receive"):
        metric = f"{BOTO3}: {OPERATIONS[name].metric}"
        for round_ in range(1, options.rounds + 1):
            with windlass(options.windlass, options.scratch) as server:
                subject = subject_of(server, signed=False)
                answers = answers_of(subject.sqs)
                if name == "receive":
                    subject.fill(int(_BOTO3_FASTEST * (options.seconds + WARM_UP_SECONDS)))
                result.add(metric, _THROUGH, round_, boto3_client(name, server.port, options.seconds))
            with constant(answers, options.scratch) as other:
                result.add(metric, _CONSTANT, round_, boto3_client(name, other.port, options.seconds))
        result.ratio(f"{metric}: {_THROUGH} / {_CONSTANT}", (metric, _THROUGH), (metric, _CONSTANT))


def boto3_client(operation: str, port: int, seconds: float) -> float:
    """Messages a second of sqs_boto3.py, in the environment of moto, which brings boto3 along."""
    argv = [str(python_of(MOTO.name)), "-P", str(CLIENT), operation, str(port), str(seconds)]
    return operations_a_second(argv, seconds)


def answers_of(sqs: Sqs) -> dict[str, dict[str, object]]:
    """What the server says to each call of sqs_boto3.py, for sqs_bare.py; the queue is empty afterwards."""
    queue = {"QueueUrl": sqs.url}
    found = {
        "GetQueueUrl": sqs.ask("GetQueueUrl", {"QueueName": "bench"}),
        "SendMessage": sqs.ask("SendMessage", {**queue, "MessageBody": content("bench")}),
        "ReceiveMessage": sqs.ask("ReceiveMessage", {**queue, "VisibilityTimeout": LEASE}),
    }
    receipt = json.loads(found["ReceiveMessage"].body)["Messages"][0]["ReceiptHandle"]
    found["DeleteMessage"] = sqs.ask("DeleteMessage", {**queue, "ReceiptHandle": receipt})
    for action, answer in found.items():
        if answer.status != 200:
            raise BenchmarkError(f"{action}: {answer.status}: {answer.body[:300]!r}")
    return {
        action: {
            "status": answer.status,
            "headers": [(name, value) for name, value in answer.headers if name.lower() != "date"],
            "body": answer.body.decode(),
        }
        for action, answer in found.items()
    }


@contextmanager
def constant(answers: dict[str, dict[str, object]], scratch: Path) -> Iterator[Bare]:
    """An application that gives these answers."""
    with scratch_directory(scratch, "bare") as directory:
        file = directory / "answers.json"
        file.write_text(json.dumps(answers), encoding="utf-8")
        server = Bare(directory, "bench.sqs_bare:app", {"BENCH_ANSWERS": str(file)})
        try:
            server.process.wait_for_port(server.port)
            yield server
        finally:
            server.process.stop()
