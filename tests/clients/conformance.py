"""Writes docs/reference/sqs-conformance.md of what the tests here say that they prove.

    python -m tests.clients.conformance            # write it
    python -m tests.clients.conformance --check    # say what differs, and write nothing

Everything in botocore's model of SQS has to be proved by a test or have a reason why not, or neither works.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import sys
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.clients import model
from tests.clients.proofs import CLIENTS, Proof, proofs_of
from tests.clients.reasons import REASONS

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "reference" / "sqs-conformance.md"

HEAD = """\
# SQS, proved with its clients

What of the SQS protocol a test in [tests/clients](../../tests/clients) proves, and with which client, each
for real against a real server. A test says what it proves, this page is made of that
(`python -m tests.clients.conformance`), and a test compares the two.

Everything in the model of SQS that boto3 carries is here: {actions} actions, {parameters} parameters and
{errors} errors, each proved with one client at least, or with a reason why not. Errors that are common to
all services of AWS, which the model leaves out, come after an action's own.

`yes`: a test with this client proves it. An empty cell: no test with this client is about it.

| action | {columns} |
|---|{dashes}|
{summary}
"""


class _Collector:
    """A plugin of pytest, which reads the marks of all tests."""

    def __init__(self) -> None:
        self.proofs: set[Proof] = set()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            for mark in item.iter_markers("proves"):
                self.proofs |= proofs_of(*mark.args)


def declared() -> set[Proof]:
    """What the tests of this directory say that they prove."""
    collector, said = _Collector(), io.StringIO()
    with contextlib.redirect_stdout(said):
        status = pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", str(HERE)], [collector])
    if status != pytest.ExitCode.OK:
        raise SystemExit(said.getvalue())
    return collector.proofs


def gaps(proofs: Iterable[Proof]) -> list[str]:
    """What is wrong with these proofs and the reasons: what lacks both, has both, or is not there at all."""
    actions = model.actions()
    proved: dict[str, set[str]] = {name: set() for name in actions}
    wrong, used = [], set()
    for proof in proofs:
        action = actions.get(proof.action)
        error = proof.what.startswith("!")
        if action is None or (proof.what and not error and proof.what not in action.parameters):
            wrong.append(f"{proof.action} {proof.what}: the model has no such thing")
        else:
            proved[proof.action].add(proof.what)
    for name, action in actions.items():
        for word in ("", *action.parameters, *(f"!{error}" for error in action.errors)):
            reason = reason_of(name, word)
            used.add(reason)
            if word not in proved[name] and reason is None:
                wrong.append(f"{name} {word}: neither a proof nor a reason")
            if word in proved[name] and reason is not None:
                wrong.append(f"{name} {word}: it is proved, and there is a reason why not: {reason[2]}")
    return sorted(wrong) + [f"{reason}: a reason for nothing" for reason in REASONS if reason not in used]


def reason_of(action: str, word: str) -> tuple[str, str, str] | None:
    """The first reason that is about this."""
    return next(
        (each for each in REASONS if fnmatchcase(action, each[0]) and fnmatchcase(word, each[1])), None
    )


def page(proofs: set[Proof]) -> str:
    """The whole document."""
    actions = model.actions()
    summary = "\n".join(
        f"| [{name}](#{name.lower()}) | {' | '.join(_answers(proofs, name, ''))} |"
        for name in sorted(actions)
    )
    head = HEAD.format(
        actions=len(actions),
        parameters=sum(len(action.parameters) for action in actions.values()),
        errors=sum(len(action.errors) for action in actions.values()),
        columns=" | ".join(CLIENTS),
        dashes="|".join("---" for _ in CLIENTS),
        summary=summary,
    )
    sections = "\n".join(line for name in sorted(actions) for line in _section(proofs, name))
    return f"{head}\n{sections.rstrip()}\n"


def _section(proofs: set[Proof], name: str) -> Iterator[str]:
    action = model.actions()[name]
    own = [f"!{error}" for error in sorted(action.errors)]
    common = sorted({p.what for p in proofs if p.action == name and p.what.startswith("!")} - set(own))
    yield f"## {name}\n"
    for title, words in (("parameter", list(action.parameters)), ("error", own + common)):
        proved = [word for word in words if reason_of(name, word) is None]
        if proved:
            yield f"| {title} | {' | '.join(CLIENTS)} |"
            yield "|---|" + "|".join("---" for _ in CLIENTS) + "|"
            for word in proved:
                yield f"| `{word.lstrip('!')}` | {' | '.join(_answers(proofs, name, word))} |"
            yield ""
    for reason, words in _unproved(name, [*action.parameters, *own]).items():
        names = ", ".join("`" + word.lstrip("!") + "`" for word in words)
        yield f"- {names}: {reason}"
    yield ""


def _unproved(action: str, words: list[str]) -> dict[str, list[str]]:
    """What of this has a reason why not, by reason."""
    found: dict[str, list[str]] = {}
    for word in words:
        if (reason := reason_of(action, word)) is not None:
            found.setdefault(reason[2], []).append(word)
    return found


def _answers(proofs: set[Proof], action: str, word: str) -> list[str]:
    """A row's cells, one a client."""
    return ["yes" if Proof(client, action, word) in proofs else "" for client in CLIENTS]


def main(arguments: list[str]) -> int:
    proofs = declared()
    if wrong := gaps(proofs):
        print("\n".join(wrong), file=sys.stderr)
        return 1
    text = page(proofs)
    if arguments != ["--check"]:
        PAGE.write_text(text)
        return 0
    known = PAGE.read_text() if PAGE.exists() else ""
    sys.stderr.writelines(
        difflib.unified_diff(known.splitlines(True), text.splitlines(True), "here", "tests")
    )
    return int(known != text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
