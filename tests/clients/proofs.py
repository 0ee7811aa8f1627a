"""How a test says what it proves: which actions, parameters and errors of SQS, with which client.

    @proves(BOTO3, SendMessage="MessageBody DelaySeconds !QueueDoesNotExist")

A word is a parameter, a dot leads into one (`Entries.Id`, `Attributes.DelaySeconds`), and one with `!` is an
error. conformance.py makes the table in the docs of all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

BOTO3 = "boto3"
CLI = "AWS CLI"
JAVASCRIPT = "JavaScript"
CELERY = "Celery"
CLIENTS = (BOTO3, CLI, JAVASCRIPT, CELERY)


@dataclass(frozen=True, order=True)
class Proof:
    """One thing that one test shows; `what` is "" for the action as such."""

    client: str
    action: str
    what: str


def proves(client: str, **words: str) -> pytest.MarkDecorator:
    """A mark for a test or a case of one; the names of `words` are actions."""
    return pytest.mark.proves(client, words)


def proofs_of(client: str, words: dict[str, str]) -> set[Proof]:
    """What such a mark says; a parameter's part is a proof of the parameter too."""
    found = set()
    for action, named in words.items():
        found.add(Proof(client, action, ""))
        for word in named.split():
            parts = [word] if word.startswith("!") else word.split(".")
            found |= {Proof(client, action, ".".join(parts[: n + 1])) for n in range(len(parts))}
    return found


def each(parameter: str, *names: str) -> str:
    """The words for parts of one parameter."""
    return " ".join(f"{parameter}.{name}" for name in names)
