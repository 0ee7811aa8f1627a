"""The attributes of a queue: what is taken, what becomes of it, and what is shown."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.message import QueueInfo, QueueSettings
from windlass.server.sqs import attributes
from windlass.server.sqs.errors import SqsError

RANGES = {
    "DelaySeconds": (0, 900),
    "KmsDataKeyReusePeriodSeconds": (60, 86_400),
    "MaximumMessageSize": (1024, 1_048_576),
    "MessageRetentionPeriod": (60, 1_209_600),
    "ReceiveMessageWaitTimeSeconds": (0, 20),
    "VisibilityTimeout": (0, 43_200),
}
"""As the API reference has them."""
OF_FIFO = {
    "FifoQueue": "true",
    "ContentBasedDeduplication": "true",
    "DeduplicationScope": "messageGroup",
    "FifoThroughputLimit": "perQueue",
}
NAMES = [
    *RANGES,
    *OF_FIFO,
    "KmsMasterKeyId",
    "Policy",
    "RedriveAllowPolicy",
    "RedrivePolicy",
    "SqsManagedSseEnabled",
]
DLQ = "arn:aws:sqs:us-east-1:000000000000:dlq"
NO_COUNTS: list[Any] = [0, 1001, "0", "", "x", 1.5, True, None, [], -1, "9" * 40]


def changed(old: QueueSettings | None = None, /, *, fifo: object = False, **given: str) -> QueueSettings:
    """A queue's settings after SetQueueAttributes."""
    old = old or QueueSettings()
    return msgspec.structs.replace(old, **attributes.changes(old, attributes.check(given, fifo=bool(fifo))))


def info(settings: QueueSettings | None = None, name: str = "q", **counts: int) -> QueueInfo:
    return QueueInfo(
        name=name,
        settings=settings or QueueSettings(),
        paused=False,
        created_at=1_700_000_000_999,
        **counts,
    )


def refused(*, fifo: object = False, **given: str) -> tuple[str, str]:
    """(name, message) of the error that a value gives."""
    with pytest.raises(SqsError) as error:
        changed(fifo=fifo, **given)
    return error.value.name, error.value.message


def redrive(**policy: Any) -> str:
    return json.dumps(policy)


@pytest.mark.parametrize("name", RANGES)
def test_numbers_have_the_ranges_of_the_reference(name: str) -> None:
    """Fails when a range is shut at one of its ends, or open beyond it."""
    least, most = RANGES[name]
    for value in (least, most):
        assert attributes.shown(info(changed(KmsMasterKeyId="k", **{name: str(value)})))[name] == str(value)
    for wrong in (least - 1, most + 1, "", " 60", "60 ", "60.0", "6e1", "+60", "٦٠", "60\n", "true"):
        assert refused(**{name: str(wrong)}) == (
            "InvalidAttributeValue",
            f"Invalid value for the parameter {name}.",
        )


def test_a_number_is_shown_without_its_zeros() -> None:
    """Fails when 007 is another value than 7 to CreateQueue."""
    seven = info(changed(DelaySeconds="007"))
    assert attributes.shown(seven)["DelaySeconds"] == "7"
    assert attributes.differing(seven, attributes.check({"DelaySeconds": "7"}, fifo=False)) is None


@pytest.mark.parametrize("name", OF_FIFO)
def test_what_only_fifo_queues_have_is_unknown_to_others(name: str) -> None:
    """Fails when a standard queue takes it, or shows it."""
    assert refused(**{name: OF_FIFO[name]}) == ("InvalidAttributeName", f"Unknown Attribute {name}.")
    with pytest.raises(SqsError) as error:
        attributes.selected(info(), [name])
    assert error.value.name == "InvalidAttributeName"
    assert name not in attributes.shown(info())
    settings = changed(fifo=True, **{name: OF_FIFO[name]})
    assert attributes.selected(info(settings, "q.fifo"), [name]) == {name: OF_FIFO[name]}


def test_the_type_of_a_queue_is_not_changed() -> None:
    assert refused(fifo=True, FifoQueue="false") == (
        "InvalidAttributeValue",
        "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported.",
    )
    assert attributes.is_fifo({"FifoQueue": "true"})
    assert not attributes.is_fifo({})
    with pytest.raises(SqsError, match="Unknown Attribute FifoQueue"):
        attributes.is_fifo({"FifoQueue": "false"})


@pytest.mark.parametrize("name", ["QueueArn", "CreatedTimestamp", "All", "visibilitytimeout", "tags", ""])
def test_what_is_no_attribute_or_can_only_be_read_is_refused(name: str) -> None:
    """Fails when the tags, which lie beside the attributes, can be set as one."""
    assert refused(**{name: "1"})[0] == "InvalidAttributeName"


def test_a_visibility_timeout_of_zero_is_kept_beside_a_lease() -> None:
    """Fails when lease_seconds is 0, which no queue may have, or when a later value does not replace it."""
    none = changed(VisibilityTimeout="0")
    assert none.lease_seconds > 0
    assert none.sqs == {"VisibilityTimeout": "0"}
    assert attributes.shown(info(none))["VisibilityTimeout"] == "0"
    later = changed(none, VisibilityTimeout="45")
    assert (later.lease_seconds, later.sqs) == (45, {})
    assert attributes.shown(info(QueueSettings(lease_seconds=0.2)))["VisibilityTimeout"] == "1"


def test_settings_of_the_engine_follow_the_attributes() -> None:
    """Fails when a Body of only quotes and line ends, which JSON doubles, does not fit where it may."""
    settings = changed(MaximumMessageSize="1024", MessageRetentionPeriod="60")
    assert settings.max_message_bytes == 2 * 1024 + 2
    assert len(json.dumps('"\n' * 512)) == settings.max_message_bytes
    assert settings.retention_seconds == 60
    unset = attributes.shown(info())
    assert (unset["MessageRetentionPeriod"], unset["MaximumMessageSize"]) == ("1209600", "1048576")
    assert attributes.shown(info(QueueSettings(max_message_bytes=5)))["MaximumMessageSize"] == "5"
    new = attributes.shown(info(msgspec.structs.replace(attributes.NOTHING, **attributes.NEW)))
    assert (new["MessageRetentionPeriod"], new["MaximumMessageSize"]) == ("345600", "1048576")


@pytest.mark.parametrize("count", [3, "3", "0003"])
def test_a_redrive_policy_is_a_dead_letter(count: int | str) -> None:
    """Fails when a count in quotes is refused, or an empty policy leaves the dead letter as it was."""
    given = redrive(maxReceiveCount=count, deadLetterTargetArn="arn:aws-cn:sqs:eu-west-1:123456789012:dlq")
    settings = changed(RedrivePolicy=given)
    assert (settings.dead_letter, settings.max_deliveries) == ("dlq", 3)
    assert attributes.shown(info(settings))["RedrivePolicy"] == (
        f'{{"deadLetterTargetArn":"{DLQ}","maxReceiveCount":3}}'
    )
    gone = changed(settings, RedrivePolicy="")
    assert (gone.dead_letter, gone.max_deliveries) == (None, None)
    assert "RedrivePolicy" not in attributes.shown(info(gone))
    alone = QueueSettings(max_deliveries=5)  # dead letters that stay where they are: SQS knows none
    assert changed(alone, RedrivePolicy="").max_deliveries == 5


@pytest.mark.parametrize(
    ("policy", "error", "reason"),
    [
        ("[]", "InvalidParameterValue", "Redrive policy is not a valid JSON map."),
        ("{", "InvalidParameterValue", "Redrive policy is not a valid JSON map."),
        ("[" * 100_000, "InvalidParameterValue", "Redrive policy is not a valid JSON map."),
        (redrive(deadLetterTargetArn=DLQ), "InvalidParameterValue", "mandatory attribute: maxReceiveCount."),
        (redrive(maxReceiveCount=1), "InvalidParameterValue", "mandatory attribute: deadLetterTargetArn."),
        (
            redrive(deadLetterTargetArn=DLQ, maxReceiveCount=1, x=1),
            "InvalidParameterValue",
            "Only following attributes are supported: [maxReceiveCount, deadLetterTargetArn].",
        ),
        *(
            (
                redrive(deadLetterTargetArn=DLQ, maxReceiveCount=count),
                "InvalidParameterValue",
                "valid values are from 1 to 1000 both inclusive.",
            )
            for count in NO_COUNTS
        ),
        *(
            (
                redrive(deadLetterTargetArn=arn, maxReceiveCount=1),
                "InvalidParameterValue",
                "Invalid value for deadLetterTargetArn.",
            )
            for arn in ("dlq", "", None, 7, "arn:aws:sns:us-east-1:000000000000:topic", DLQ + "/x")
        ),
    ],
)
def test_a_redrive_policy_that_is_none_is_refused(policy: str, error: str, reason: str) -> None:
    """Fails when anything but 1 to 1000 deliveries and the ARN of a queue gets through."""
    name, message = refused(RedrivePolicy=policy)
    assert name == error
    assert message.endswith(reason)


def test_a_redrive_allow_policy_lets_in_whom_it_says() -> None:
    """Fails when denyAll, or a list without the queue, lets it in."""

    def allows(**policy: Any) -> bool:
        return attributes.allows(changed(RedriveAllowPolicy=json.dumps(policy)), "source")

    source = "arn:aws:sqs:us-east-1:123456789012:source"
    assert attributes.allows(QueueSettings(), "source")
    assert allows(redrivePermission="allowAll")
    assert not allows(redrivePermission="denyAll")
    assert allows(redrivePermission="byQueue", sourceQueueArns=[DLQ, source])
    assert not allows(redrivePermission="byQueue", sourceQueueArns=[source + "2", DLQ])


@pytest.mark.parametrize(
    "policy",
    [
        {},
        [],
        {"redrivePermission": "all"},
        {"redrivePermission": ["allowAll"]},
        {"redrivePermission": "allowAll", "x": 1},
        {"redrivePermission": "allowAll", "sourceQueueArns": [DLQ]},
        {"redrivePermission": "byQueue"},
        {"redrivePermission": "byQueue", "sourceQueueArns": []},
        {"redrivePermission": "byQueue", "sourceQueueArns": DLQ},
        {"redrivePermission": "byQueue", "sourceQueueArns": [1]},
        {"redrivePermission": "byQueue", "sourceQueueArns": None},
        {"redrivePermission": "byQueue", "sourceQueueArns": ["dlq"]},
        {"redrivePermission": "byQueue", "sourceQueueArns": [DLQ] * 11},
    ],
)
def test_a_redrive_allow_policy_that_is_none_is_refused(policy: Any) -> None:
    assert refused(RedriveAllowPolicy=json.dumps(policy))[0] in (
        "InvalidAttributeValue",
        "InvalidParameterValue",
    )


def test_a_policy_is_json_and_given_back_as_it_came() -> None:
    """Fails when its text is another one, when it cannot be taken away, or has no bounds."""
    text = '{ "Version": "2012-10-17", "Statement": {"Effect": "Allow", "Principal": "*"} }'
    kept = changed(Policy=text)
    assert attributes.shown(info(kept))["Policy"] == text
    assert "Policy" not in attributes.shown(info(changed(kept, Policy="")))
    for wrong in ("{", "[]", "1", "null", " ", "\x00", '{"a": "' + "x" * 9000 + '"}', '{"a":"\ufffe"}'):
        assert refused(Policy=wrong)[0] == "InvalidAttributeValue"
    assert refused(Policy=json.dumps({"Statement": [{}] * 21}))[0] == "OverLimit"


def test_one_kind_of_encryption_at_a_time() -> None:
    """Fails when both are shown at once: SQS has one or the other."""
    assert refused(KmsMasterKeyId="k", SqsManagedSseEnabled="true")[0] == "InvalidAttributeName"
    key = changed(KmsMasterKeyId="k")
    assert attributes.selected(
        info(key), ["KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds", "SqsManagedSseEnabled"]
    ) == {"KmsMasterKeyId": "k", "KmsDataKeyReusePeriodSeconds": "300", "SqsManagedSseEnabled": "false"}
    managed = attributes.shown(info(changed(key, SqsManagedSseEnabled="true")))
    assert managed["SqsManagedSseEnabled"] == "true"
    assert "KmsMasterKeyId" not in managed
    back = attributes.shown(info(changed(changed(SqsManagedSseEnabled="true"), KmsMasterKeyId="k")))
    assert back["SqsManagedSseEnabled"] == "false"


def test_a_limit_by_group_needs_deduplication_by_group() -> None:
    """Fails when the two are only looked at where one request names both."""
    assert refused(fifo=True, FifoThroughputLimit="perMessageGroupId")[0] == "InvalidAttributeValue"
    scoped = changed(fifo=True, DeduplicationScope="messageGroup")
    both = changed(scoped, fifo=True, FifoThroughputLimit="perMessageGroupId")
    assert attributes.shown(info(both, "q.fifo"))["FifoThroughputLimit"] == "perMessageGroupId"
    with pytest.raises(SqsError):
        changed(both, fifo=True, DeduplicationScope="queue")


def test_all_attributes_of_a_queue() -> None:
    """Fails when one is missing, or one is there that is not set; blocked messages can be received soon."""
    plain = info(ready=1, blocked=2, leased=4, delayed=8, dead=16)
    assert attributes.selected(plain, ["All", "All"]) == {
        "QueueArn": "arn:aws:sqs:us-east-1:000000000000:q",
        "ApproximateNumberOfMessages": "3",
        "ApproximateNumberOfMessagesNotVisible": "4",
        "ApproximateNumberOfMessagesDelayed": "8",
        "CreatedTimestamp": "1700000000",
        "LastModifiedTimestamp": "1700000000",
        "VisibilityTimeout": "30",
        "MaximumMessageSize": "1048576",
        "MessageRetentionPeriod": "1209600",
        "DelaySeconds": "0",
        "ReceiveMessageWaitTimeSeconds": "0",
        "SqsManagedSseEnabled": "false",
    }
    assert attributes.selected(info(name="q.fifo"), ["All"]).keys() - attributes.shown(plain).keys() == {
        "FifoQueue",
        "ContentBasedDeduplication",
        "DeduplicationScope",
        "FifoThroughputLimit",
    }
    assert attributes.selected(plain, []) == {}
    assert attributes.selected(plain, ["Policy", "RedrivePolicy"]) == {}
    with pytest.raises(SqsError, match="Unknown Attribute Allah"):
        attributes.selected(plain, ["All", "Allah"])


def test_what_creating_again_compares() -> None:
    """Fails when a JSON text that means the same is another value, or a default that is named."""
    settings = changed(
        Policy='{"a": 1}',
        RedriveAllowPolicy='{"redrivePermission": "denyAll"}',
        RedrivePolicy=redrive(maxReceiveCount=2, deadLetterTargetArn=DLQ),
    )

    def differing(**given: str) -> str | None:
        return attributes.differing(info(settings), attributes.check(given, fifo=False))

    assert differing() is None
    assert differing(DelaySeconds="0", VisibilityTimeout="30", KmsMasterKeyId="") is None
    assert differing(Policy='{"a":1}', RedriveAllowPolicy='{"redrivePermission":"denyAll"}') is None
    assert differing(RedrivePolicy=redrive(deadLetterTargetArn=DLQ, maxReceiveCount="2")) is None
    assert differing(RedrivePolicy=redrive(deadLetterTargetArn=DLQ, maxReceiveCount="3")) == "RedrivePolicy"
    assert differing(RedrivePolicy="") == "RedrivePolicy"
    assert differing(VisibilityTimeout="30", DelaySeconds="1") == "DelaySeconds"


values = st.one_of(
    st.text(),
    st.integers().map(str),
    st.sampled_from(["true", "false", "queue", "messageGroup", "perQueue", "{}", '{"Statement":{}}']),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    ).map(json.dumps),
    st.fixed_dictionaries(
        {},
        optional={
            "maxReceiveCount": st.integers() | st.text() | st.floats(),
            "deadLetterTargetArn": st.text() | st.just(DLQ),
            "redrivePermission": st.text() | st.sampled_from(["allowAll", "denyAll", "byQueue"]),
            "sourceQueueArns": st.lists(st.just(DLQ) | st.text()) | st.text(),
        },
    ).map(json.dumps),
)


@given(st.sampled_from(NAMES), values, st.booleans())
def test_any_text_is_an_error_of_sqs_or_is_kept(name: str, value: str, fifo: bool) -> None:
    """Fails when a text raises anything else, or is taken and then not there for CreateQueue to compare."""
    try:
        checked = attributes.check({name: value}, fifo=fifo)
        settings = changed(fifo=fifo, **{name: value})
    except SqsError as error:
        assert error.status in (400, 403)  # noqa: PT017 - most texts are refused
        return
    json_text = msgspec.json.encode(settings)
    assert msgspec.json.decode(json_text, type=QueueSettings) == settings
    queue = info(settings, "q.fifo" if fifo else "q")
    assert attributes.differing(queue, checked) is None
    assert all(attributes.selected(queue, [name]).values())
