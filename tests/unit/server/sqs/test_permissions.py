"""A queue's policy, as AddPermission and RemovePermission edit it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.server.sqs import attributes, permissions
from windlass.server.sqs.errors import SqsError

ONE, TWO = "111111111111", "222222222222"
ARN = "arn:aws:sqs:us-east-1:000000000000:q"


def refused(
    policy: str = "",
    label: str = "label",
    accounts: tuple[str, ...] = (ONE,),
    actions: tuple[str, ...] = ("SendMessage",),
) -> tuple[str, str]:
    with pytest.raises(SqsError) as error:
        permissions.add(policy, "q", label, accounts, actions)
    return error.value.name, error.value.message


def test_a_policy_has_the_shape_that_sqs_gives_it() -> None:
    """Fails when one account or one action is a list, or several are not."""
    policy = permissions.add("", "q", "first", [ONE], ["ReceiveMessage"])
    policy = permissions.add(policy, "q", "second", [ONE, TWO], ["SendMessage", "*"])
    assert json.loads(policy) == {
        "Version": "2008-10-17",
        "Id": f"{ARN}/SQSDefaultPolicy",
        "Statement": [
            {
                "Sid": "first",
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{ONE}:root"},
                "Action": "SQS:ReceiveMessage",
                "Resource": ARN,
            },
            {
                "Sid": "second",
                "Effect": "Allow",
                "Principal": {"AWS": [f"arn:aws:iam::{ONE}:root", f"arn:aws:iam::{TWO}:root"]},
                "Action": ["SQS:SendMessage", "SQS:*"],
                "Resource": ARN,
            },
        ],
    }
    policy = permissions.remove(policy, "q", "first")
    assert [statement["Sid"] for statement in json.loads(policy)["Statement"]] == ["second"]
    assert permissions.remove(policy, "q", "second") == ""


def test_a_policy_that_somebody_wrote_is_kept_around_the_statement() -> None:
    """Fails when its version, id or statements are lost, also where one stands without a list."""
    written = {"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Principal": "*"}}
    policy = json.loads(permissions.add(json.dumps(written), "q", "label", [ONE], ["GetQueueUrl"]))
    assert policy["Version"] == "2012-10-17"
    assert policy["Statement"][0] == written["Statement"]
    assert policy["Statement"][1]["Sid"] == "label"


def test_labels() -> None:
    policy = permissions.add("", "q", "label", [ONE], ["SendMessage"])
    assert refused(policy) == (
        "InvalidParameterValue",
        "Value label for parameter Label is invalid. Reason: Already exists.",
    )
    for label in ("", "a b", "ä", "x" * 81, "x\n"):
        assert refused(label=label)[0] == "InvalidParameterValue"
    for policy_now, reason in (("", "can't find label."), (policy, "can't find label on existing policy.")):
        with pytest.raises(SqsError) as error:
            permissions.remove(policy_now, "q", "other")
        assert error.value.name == "InvalidParameterValue"
        assert error.value.message.endswith(f"Reason: {reason}")


def test_actions_and_accounts() -> None:
    """Fails when an owner's action, or one that there is not, can be granted."""
    assert refused(actions=()) == ("MissingParameter", "The request must contain the parameter Actions.")
    assert refused(actions=("SendMessage",) * 8) == (
        "OverLimit",
        "8 Actions were found, maximum allowed is 7.",
    )
    assert refused(actions=("RemovePermission",)) == (
        "InvalidParameterValue",
        "Value SQS:RemovePermission for parameter ActionName is invalid. Reason: Only the queue owner is"
        " allowed to invoke this action.",
    )
    assert refused(actions=("SendMessage", "Nothing"))[0] == "InvalidParameterValue"
    assert (
        refused(accounts=())[1] == "Value [] for parameter PrincipalId is invalid. Reason: Unable to verify."
    )
    assert refused(accounts=(ONE, "12345"))[0] == "InvalidParameterValue"


def test_a_policy_has_twenty_statements_and_8192_bytes() -> None:
    """Fails when AddPermission makes a policy that SetQueueAttributes would not take."""
    policy = ""
    for n in range(20):
        policy = permissions.add(policy, "q", f"label{n}", [ONE], ["SendMessage"])
    attributes.check({"Policy": policy}, fifo=False)
    assert refused(policy) == ("OverLimit", "21 Statements were found, maximum allowed is 20.")
    assert refused(accounts=(ONE,) * 400)[0] == "OverLimit"


@given(
    st.sampled_from(["", "{}", '{"Statement":null}', '{"Statement":[1,null,{"Sid":7}]}']),
    st.text() | st.just("label"),
    st.lists(st.text() | st.just(ONE)),
    st.lists(st.text() | st.sampled_from(["*", "SendMessage"])),
)
def test_anything_is_an_error_of_sqs_or_can_be_taken_away_again(
    policy: str, label: str, accounts: list[str], actions: list[str]
) -> None:
    try:
        added = permissions.add(policy, "q", label, accounts, actions)
    except SqsError as error:
        assert error.status in (400, 403)  # noqa: PT017 - most are refused
        return
    assert attributes.check({"Policy": added}, fifo=False) == {"Policy": added}
    with pytest.raises(SqsError):
        permissions.remove(permissions.remove(added, "q", label), "q", label)
