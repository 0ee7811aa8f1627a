"""One message a request on 32 connections, against brokers that are asked for the same durability.

`send` is a confirmed message a second; `receive + ack` a message received and acknowledged, whatever the
number of requests that takes (two for Windlass, beanstalkd and Redis). Compare like with like: rows of
kind C are wrk and closed_loop.c, rows of kind Python are processes of bench/load.py.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

from bench.environment import disk_flushes
from bench.measure import WARM_UP_SECONDS, measure, preload
from bench.peers import PEERS, Peer, c_client, compile_closed_loop, python_client, running
from bench.processes import scratch_directory
from bench.results import Options, Result, begin, console, finish
from bench.servers import windlass

SEND, RECEIVE = "send", "receive + ack"
AIMS = {"beanstalkd": 2.0, "rabbitmq": 1.3, "nats": 1.0, "redis": 1.0}
PYTHON_CLIENTS = {
    "windlass": "Python (asyncio)",
    "beanstalkd": "Python (asyncio)",
    "rabbitmq": "Python (aio-pika)",
    "nats": "Python (nats-py)",
    "redis": "Python (redis-py)",
}

# A client of a peer: operation, measured seconds (or 0), count; gives operations a second.
Client = Callable[[str, float, int], float]


def run(options: Options) -> None:
    result = begin("peers", options)
    connections = options.connections[0]
    peers = [peer for peer in PEERS if options.wants(peer.name)]
    for peer in [peer for peer in peers if not peer.installed()]:
        result.notes.append(f"{peer.name} is left out: {peer.program} is not installed")
        peers.remove(peer)
    with scratch_directory(options.scratch, "client") as directory:
        closed_loop = compile_closed_loop(directory)
        if closed_loop is None:
            result.notes.append("there is no gcc: the rows of kind C are left out for the peers")
        for round_ in range(1, options.rounds + 1):
            measure_windlass(result, round_, connections)
            for kind in peers:
                with running(kind, options.scratch) as broker:
                    measure_peer(result, round_, connections, broker, closed_loop)
    result.settings["durability"] = {
        "windlass": "answers after the fsync of its commit (synchronous=FULL)",
        **{peer.name: peer.durability for peer in peers},
    }
    result.notes += [f"{name}: {text}" for name, text in result.settings["durability"].items()]
    if any(peer.name == "rabbitmq" for peer in peers):
        result.notes.append("rabbitmq: acknowledgements are neither answered nor synced; prefetch 1")
    for metric in (SEND, RECEIVE):
        for peer in peers:
            if peer.protocol is not None and closed_loop is not None:
                aim = AIMS[peer.name] if peer.name != "redis" else None
                compare(result, metric, "windlass, C (wrk)", f"{peer.name}, C", aim)
            own = f"windlass, {PYTHON_CLIENTS['windlass']}"
            compare(result, metric, own, f"{peer.name}, {PYTHON_CLIENTS[peer.name]}", AIMS[peer.name])
    tell_flushes(result)
    finish(result)


def measure_windlass(result: Result, round_: int, connections: int) -> None:
    options = result.options
    for metric, operation, requests in ((SEND, "send", 1), (RECEIVE, "lease_ack", 2)):
        with windlass(options.windlass, options.scratch) as server:
            found = measure(server, operation, options, connections=connections)
        result.add(metric, "windlass, C (wrk)", round_, found.rate / requests, **found.details)
    variant = f"windlass, {PYTHON_CLIENTS['windlass']}"
    for metric, operation in ((SEND, "send"), (RECEIVE, "receive")):
        with windlass(options.windlass, options.scratch) as server:
            if operation == "receive":
                preload(server, options)
            port = server.port
            python_client("windlass", operation, port, connections=connections, seconds=WARM_UP_SECONDS)
            flushes = disk_flushes()
            rate = python_client(
                "windlass", operation, port, connections=connections, seconds=options.seconds
            )
            flushes = disk_flushes() - flushes
        result.add(metric, variant, round_, rate, flushes_a_second=flushes / options.seconds)


def measure_peer(result: Result, round_: int, connections: int, peer: Peer, closed_loop: Path | None) -> None:
    """Sends, then receives, with each kind of client, on one fresh broker."""

    def python(operation: str, seconds: float, count: int) -> float:
        return python_client(
            peer.name, operation, peer.port, connections=connections, seconds=seconds, count=count
        )

    clients: dict[str, Client] = {f"{peer.name}, {PYTHON_CLIENTS[peer.name]}": python}
    if peer.protocol is not None and closed_loop is not None:
        program, protocol = closed_loop, peer.protocol

        def cheap(operation: str, seconds: float, count: int) -> float:
            return c_client(
                program, protocol, operation, peer.port, connections=connections, seconds=seconds, count=count
            )

        clients = {f"{peer.name}, C": cheap, **clients}

    fill = next(iter(clients.values()))
    seconds = result.options.seconds
    held = 0.0
    for variant, client in clients.items():
        held += client("send", WARM_UP_SECONDS, 0) * WARM_UP_SECONDS
        flushes = disk_flushes()
        rate = client("send", seconds, 0)
        flushes = disk_flushes() - flushes
        held += rate * seconds
        result.add(SEND, variant, round_, rate, flushes_a_second=flushes / seconds)
    for variant, client in clients.items():
        wanted = peer.fastest * (seconds + WARM_UP_SECONDS)
        if held < wanted:
            console.print(f"  round {round_}  filling {peer.name} to {wanted:,.0f} messages", style="dim")
            fill("send", 0, int(wanted - held))
            held = wanted
        warm = client("receive", WARM_UP_SECONDS, 0)
        flushes = disk_flushes()
        rate = client("receive", seconds, 0)
        flushes = disk_flushes() - flushes
        held -= warm * WARM_UP_SECONDS + rate * seconds
        result.add(RECEIVE, variant, round_, rate, flushes_a_second=flushes / seconds)


def tell_flushes(result: Result) -> None:
    """How often the disk was flushed, by whomever: who confirms without fsync stands out."""
    for metric, variant in result.pairs():
        runs = [run for run in result.runs if (run.metric, run.variant) == (metric, variant)]
        if found := [run.details["flushes_a_second"] for run in runs if "flushes_a_second" in run.details]:
            result.notes.append(f"{metric}, {variant}: {statistics.median(found):,.0f} disk flushes a second")


def compare(result: Result, metric: str, above: str, below: str, aim: float | None) -> None:
    result.ratio(f"{metric}: {above} / {below}", (metric, above), (metric, below), aim=aim)
