"""The page about conformance is what the tests say, and nothing of SQS is left out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients import conformance, model
from tests.clients.proofs import BOTO3, CLIENTS, Proof, proofs_of, proves

pytestmark = pytest.mark.storm

ROOT = Path(__file__).parents[2]


def test_the_page_is_what_the_tests_say() -> None:
    """Planted: a row taken out of the page; a parameter that no test names any more."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.clients.conformance", "--check"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")


def test_all_of_the_model_is_asked_for() -> None:
    actions = model.actions()
    assert len(actions) == 23
    assert "Entries.MessageAttributes.DataType" in actions["SendMessageBatch"].parameters
    assert "Attributes.RedrivePolicy" in actions["CreateQueue"].parameters
    assert "QueueDoesNotExist" in actions["SendMessage"].errors
    nothing = conformance.gaps(set())
    assert "SendMessage MessageBody: neither a proof nor a reason" in nothing
    assert "SendMessage !QueueDoesNotExist: neither a proof nor a reason" in nothing
    assert "TagQueue : neither a proof nor a reason" in nothing


def test_a_proof_of_what_is_not_there_is_none() -> None:
    wrong = conformance.gaps(proofs_of(BOTO3, {"SendMessage": "Color", "Dance": ""}))
    assert "SendMessage Color: the model has no such thing" in wrong
    assert "Dance : the model has no such thing" in wrong
    with_reason = conformance.gaps({Proof(BOTO3, "SendMessage", "!KmsDisabled")})
    assert any(line.startswith("SendMessage !KmsDisabled: it is proved, and") for line in with_reason)


def test_a_part_of_a_parameter_proves_the_parameter() -> None:
    mark = proves(BOTO3, SendMessageBatch="Entries.Id !EmptyBatchRequest").mark
    assert {proof.what for proof in proofs_of(*mark.args)} == {
        "",
        "Entries",
        "Entries.Id",
        "!EmptyBatchRequest",
    }
    assert {proof.client for proof in proofs_of(*mark.args)} <= set(CLIENTS)
