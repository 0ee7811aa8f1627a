"""The query protocol: what a form says, what is wrong with one, and the XML that goes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes, urlencode
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.server.sqs import query
from windlass.server.sqs.errors import XML_CANNOT, SqsError
from windlass.server.sqs.requests import ACTIONS, SendMessage, SendMessageBatch, fault_of

SPACE = "{http://queue.amazonaws.com/doc/2012-11-05/}"


def said(form: str) -> dict[str, Any]:
    """What a form says, without what it does not say."""
    body = msgspec.to_builtins(query.parse(form.encode())[1], builtin_types=(bytes,))
    return {name: value for name, value in body.items() if value is not None}


def fault(form: bytes) -> SqsError:
    with pytest.raises(SqsError) as caught:
        query.parse(form)
    return caught.value


RECEIVE = "Action=ReceiveMessage&Version=2012-11-05&QueueUrl=q&"
SET = "Action=SetQueueAttributes&QueueUrl=q&"
SEND = "Action=SendMessage&QueueUrl=q&MessageBody=b&"


@pytest.mark.parametrize(
    "parameters",
    [
        "AttributeName.1=b&AttributeName.2=a&AttributeName.3=c",
        "AttributeName.3=c&AttributeName.1=b&AttributeName.2=a",
        "AttributeName.10=c&AttributeName.0=b&AttributeName.9=a",
        "AttributeName.1000000000=c&AttributeName.999=a&AttributeName.1=b",
        "AttributeName.member.1=b&AttributeName.member.3=c&AttributeName.member.2=a",
        "AttributeNames.1=b&AttributeNames.2=a&AttributeNames.3=c",
        "AttributeNames.member.1=b&AttributeNames.member.2=a&AttributeNames.member.3=c",
        "&&AttributeName%2E1=b&&AttributeName.2=a&AttributeName.3=c&X-Amz-Date=1&X.Y.Z=2&",
    ],
)
def test_lists_in_the_order_of_their_numbers(parameters: str) -> None:
    """Planted defects: numbers sorted as texts (10 before 9), or not at all."""
    assert said(RECEIVE + parameters) == {"QueueUrl": "q", "AttributeNames": ["b", "a", "c"]}


def test_a_list_of_one_without_a_number_and_one_of_none() -> None:
    assert said(RECEIVE + "AttributeName=All&MessageAttributeNames=") == {
        "QueueUrl": "q",
        "AttributeNames": ["All"],
        "MessageAttributeNames": [],
    }


@pytest.mark.parametrize(
    "parameters",
    [
        "Attribute.1.Name=a&Attribute.1.Value=1&Attribute.2.Name=b&Attribute.2.Value=",
        "Attribute.7.Value=&Attribute.0.Value=1&Attribute.7.Name=b&Attribute.0.Name=a",
        "Attribute.entry.1.key=a&Attribute.entry.1.value=1&Attribute.entry.2.key=b&Attribute.entry.2.value=",
        "Attributes.entry.1.Name=a&Attributes.entry.1.Value=1&Attributes.entry.2.Name=b&"
        "Attributes.entry.2.Value=",
    ],
)
def test_maps(parameters: str) -> None:
    assert said(SET + parameters) == {"QueueUrl": "q", "Attributes": {"a": "1", "b": ""}}


def test_a_map_of_one_without_a_number() -> None:
    assert said(SET + "Attribute.Name=a&Attribute.Value=1")["Attributes"] == {"a": "1"}


def test_a_batch_with_everything() -> None:
    entry = "SendMessageBatchRequestEntry.2"
    attribute = f"{entry}.MessageAttribute.1"
    assert said(
        f"Action=SendMessageBatch&QueueUrl=q&{entry}.Id=b&{entry}.MessageBody=%3C+%3E&{entry}.DelaySeconds=007"
        f"&{attribute}.Name=n&{attribute}.Value.DataType=Binary&{attribute}.Value.BinaryValue=bnVsbA%3D%3D"
        f"&{entry}.MessageSystemAttribute.1.Name=AWSTraceHeader"
        f"&{entry}.MessageSystemAttribute.1.Value.DataType=String"
        f"&{entry}.MessageSystemAttribute.1.Value.StringValue=t"
        "&SendMessageBatchRequestEntry.1.Id=a&SendMessageBatchRequestEntry.1.MessageBody="
    )["Entries"] == [
        dict.fromkeys(["DelaySeconds", "MessageAttributes", "MessageSystemAttributes"])
        | {"Id": "a", "MessageBody": "", "MessageDeduplicationId": None, "MessageGroupId": None},
        {
            "Id": "b",
            "MessageBody": "< >",
            "DelaySeconds": 7,
            "MessageAttributes": {"n": value("Binary", BinaryValue=b"null")},
            "MessageSystemAttributes": {"AWSTraceHeader": value("String", StringValue="t")},
            "MessageDeduplicationId": None,
            "MessageGroupId": None,
        },
    ]


def value(kind: str, **given: Any) -> dict[str, Any]:
    names = ("StringValue", "BinaryValue", "StringListValues", "BinaryListValues")
    return dict.fromkeys(names) | {"DataType": kind} | given


@pytest.mark.parametrize(
    ("form", "name", "words"),
    [
        ("", "MissingAction", "Action"),
        ("Action=", "MissingAction", "Action"),
        ("Action.1=SendMessage", "MissingAction", "Action"),
        ("Action=Send&QueueUrl=q", "InvalidAction", "The action Send is not valid for this endpoint."),
        ("Action=TagQueue", "MissingParameter", "The request must contain the parameter Tags."),
        (
            "Action=SendMessageBatch&QueueUrl=q&SendMessageBatchRequestEntry.1.Id=a",
            "MissingParameter",
            "Entries[0].MessageBody",
        ),
        (SET + "Attribute.1.Name=a", "MissingParameter", "Attribute.1.Value"),
        (SET + "Attribute.1.Value=a", "MissingParameter", "Attribute.1.Name"),
        (SEND + "MessageAttribute.1.Name=a", "MissingParameter", "MessageAttribute.1.Value"),
        (
            SEND + "MessageAttribute.1.Name=a&MessageAttribute.1.Value.StringValue=a",
            "MissingParameter",
            "DataType",
        ),
        (
            SEND + "DelaySeconds=soon",
            "InvalidParameterValue",
            "Value soon for parameter DelaySeconds is invalid. Reason: Must be an integer.",
        ),
        (SEND + "DelaySeconds=", "InvalidParameterValue", "DelaySeconds"),
        (SEND + "DelaySeconds=null", "InvalidParameterValue", "DelaySeconds"),
        (SEND + "DelaySeconds=1.0", "InvalidParameterValue", "DelaySeconds"),
        (SEND + "DelaySeconds=1e3", "InvalidParameterValue", "DelaySeconds"),
        (SEND + "DelaySeconds=%D9%A3", "InvalidParameterValue", "DelaySeconds"),
        (SEND + "DelaySeconds=" + "9" * 5000, "InvalidParameterValue", "DelaySeconds"),
        (SEND + "DelaySeconds.1=1", "InvalidParameterValue", "DelaySeconds"),
        ("Action=DeleteQueue&QueueUrl.1=q", "InvalidParameterValue", "QueueUrl"),
        (
            SEND + "MessageAttribute.1.Name=a&MessageAttribute.1.Value.DataType=Binary"
            "&MessageAttribute.1.Value.BinaryValue=a",
            "InvalidParameterValue",
            "BinaryValue",
        ),
        (SEND + "MessageAttribute.1=a", "InvalidParameterValue", "MessageAttribute.1"),
        (SEND + "MessageAttribute.1.Name=a&MessageAttribute.1.Value=a", "InvalidParameterValue", "MessageA"),
        (SEND + "MessageAttribute=a", "InvalidParameterValue", "MessageAttribute"),
        (SET + "Attribute.1.Name.1=a&Attribute.1.Value=a", "InvalidParameterValue", "Attribute.1.Name"),
        (SET + "Attribute.1.Name=a&Attribute.1.Value.1=a", "InvalidParameterValue", "Attribute"),
        (
            SET + "Attribute.1.Name=a&Attribute.1.Value=1&Attribute.2.Name=a&Attribute.2.Value=2",
            "InvalidParameterValue",
            "twice",
        ),
        ("Action=DeleteQueue&QueueUrl=q&QueueUrl=q", "MalformedQueryString", "QueueUrl is there twice"),
        ("Action=DeleteQueue&QueueUrl=&QueueUrl=", "MalformedQueryString", "QueueUrl is there twice"),
        ("Action=DeleteQueue&Action=DeleteQueue&QueueUrl=q", "MalformedQueryString", "twice"),
        ("Action=DeleteQueue&QueueUrl=q&QueueUrl.1=q", "MalformedQueryString", "twice"),
        ("Action=DeleteQueue&QueueUrl.1=q&QueueUrl=q", "MalformedQueryString", "twice"),
        (RECEIVE + "AttributeName.1=a&AttributeName.01=a", "MalformedQueryString", "twice"),
        (RECEIVE + "AttributeName.1=a&AttributeNames.2=b", "MalformedQueryString", "twice"),
        (RECEIVE + "AttributeName.one=a", "MalformedQueryString", "number"),
        (RECEIVE + "AttributeName.-1=a", "MalformedQueryString", "number"),
        (RECEIVE + "AttributeName.=a", "MalformedQueryString", "number"),
        (RECEIVE + f"AttributeName.{'9' * 5000}=a", "MalformedQueryString", "number"),
        (RECEIVE + "AttributeName.1=a&AttributeName.member.2=a", "MalformedQueryString", "number"),
        ("Action=DeleteQueue&QueueUrl=%", "MalformedQueryString", "percent"),
        ("Action=DeleteQueue&QueueUrl=%4", "MalformedQueryString", "percent"),
        ("Action=DeleteQueue&QueueUrl=%4g", "MalformedQueryString", "percent"),
        ("Action=DeleteQueue&QueueUrl=%ff", "MalformedQueryString", "UTF-8"),
        ("Action=DeleteQueue&QueueUrl=%ed%a0%80", "MalformedQueryString", "UTF-8"),
        ("Action=DeleteQueue&%ff=q", "MalformedQueryString", "UTF-8"),
        ("Action=DeleteQueue&QueueUrl=q" + "&" * query.MAX_PARAMETERS, "MalformedQueryString", "5,000"),
    ],
)
def test_what_is_wrong_with_a_form(form: str, name: str, words: str) -> None:
    """Planted defects: of two the last holds; an empty value, or one of one sign, is not seen to be there
    twice; 1e3 is a number; a value that is no text goes through."""
    error = fault(form.encode())
    assert error.name == error.code == name
    assert words in error.message
    assert error.status == (404 if name == "MalformedQueryString" else 400)
    assert error.sender


_parts = st.sampled_from(
    [
        *[
            "Action",
            "QueueUrl",
            "Attribute",
            "Attributes",
            "MessageAttribute",
            "AttributeName",
            "Tag",
            "Name",
        ],
        *[
            "SendMessageBatchRequestEntry",
            "Entries",
            "Id",
            "MessageBody",
            "DelaySeconds",
            "Value",
            "DataType",
        ],
        *[
            "StringListValue",
            "BinaryValue",
            "member",
            "entry",
            "key",
            "value",
            "0",
            "1",
            "01",
            "999999999999",
        ],
        *["-1", "", "%00", "%ff", "%", "9" * 30, "VisibilityTimeout", "ReceiptHandle", "TagKey", "Version"],
    ]
)
_keys = st.lists(_parts, min_size=1, max_size=8).map(".".join) | st.text(max_size=5)
_hostile = st.lists(
    st.tuples(_keys, _parts | st.text(max_size=5)).map("=".join) | st.text(max_size=5), max_size=12
).map("&".join)


@given(st.sampled_from(sorted(ACTIONS)), _hostile, st.binary(max_size=8))
def test_no_form_brings_down_the_parser(action: str, form: str, junk: bytes) -> None:
    """Planted defects: a number is read before it is known to be one; a text is taken for a map."""
    body = f"Action={action}&{form}&".encode(errors="surrogatepass") + junk
    try:
        shape = query.parse(body)[1]
    except SqsError as error:
        ElementTree.fromstring(query.render_error(error, "id-1"))
    else:
        assert type(shape) is ACTIONS[action]
        msgspec.json.encode(shape)  # its texts are texts


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"))))
def test_any_texts_come_through(attributes: dict[str, str]) -> None:
    form = [("Action", "CreateQueue"), ("QueueName", "q")]
    for number, (name, text) in enumerate(attributes.items()):
        form += [(f"Tag.{number}.Key", name), (f"Tag.{number}.Value", text)]
    assert said(urlencode(form)).get("tags", {}) == attributes


@given(st.binary(max_size=30) | st.text(st.sampled_from("%aF0g\\xuN{}\n+ \u00e9")).map(str.encode))
def test_values_are_decoded_as_the_standard_library_does(text: bytes) -> None:
    """Or refused. Planted defect: a backslash that is not doubled: what follows it is taken for an escape."""
    text = text.replace(b"&", b"%26")
    wanted = unquote_to_bytes(text.replace(b"+", b" "))
    broken = any(not is_hex(part[:2]) for part in text.split(b"%")[1:])
    if broken or wanted.decode(errors="replace").encode() != wanted:
        with pytest.raises(SqsError) as caught:
            said_body(text)
        assert caught.value.name == "MalformedQueryString"
    else:
        assert said_body(text) == wanted.decode()


def said_body(value: bytes) -> str:
    _, shape = query.parse(SEND.replace("MessageBody=b&", "MessageBody=").encode() + value)
    assert isinstance(shape, SendMessage)
    return shape.message_body


def is_hex(two: bytes) -> bool:
    return len(two) == 2 and all(sign in b"0123456789abcdefABCDEF" for sign in two)


def test_escapes_are_decoded_at_the_speed_of_memory() -> None:
    """A body of 8 MiB of them must not hold up everybody else. Planted defect: a step of Python for each of
    them, as the standard library's are."""
    text, wanted = b"%41a\\" * 1_600_000, "Aa\\" * 1_600_000
    assert seconds(lambda: said_body(text) == wanted) < seconds(lambda: unquote_to_bytes(text)) / 3


def seconds(work: Callable[[], object]) -> float:
    """Of the processor."""
    begun = time.process_time()
    assert work()
    return time.process_time() - begun


def test_hostile_numbers_and_keys_cost_nothing() -> None:
    """Planted defect: a list as long as its largest number."""
    most = query.MAX_PARAMETERS - 10
    names = "&".join(f"AttributeName.{10**17 + number}=a" for number in range(most))
    assert said(RECEIVE + names)["AttributeNames"] == ["a"] * most
    assert said(RECEIVE + "X" + ".X" * 8_000_000 + "=1") == {"QueueUrl": "q"}


def test_what_msgspec_says_is_an_error_of_sqs() -> None:
    """Planted defect: a wrong type in JSON under the name of the query protocol."""

    def told(json: bool, text: str) -> tuple[str, str]:
        with pytest.raises(msgspec.ValidationError) as caught:
            msgspec.json.decode(text, type=SendMessageBatch)
        error = fault_of(caught.value, json=json)
        return error.name, error.message

    needed = ("MissingParameter", "The request must contain the parameter Entries.")
    assert told(True, "{}") == told(False, "{}") == needed
    wrong = '{"QueueUrl": "q", "Entries": [{"Id": 5}]}'
    assert told(True, wrong) == ("SerializationException", "Entries[0].Id: Expected `str`, got `int`.")
    assert told(False, wrong)[0] == "InvalidParameterValue"
    assert told(True, "[]") == ("SerializationException", "The request: Expected `object`, got `array`.")
    assert told(False, wrong)[1].startswith("Value for parameter Entries[0].Id is invalid.")


# --- what goes out ------------------------------------------------------------------------------------

HEAD = b'<?xml version="1.0"?><%bResponse xmlns="http://queue.amazonaws.com/doc/2012-11-05/">'
TAIL = b"<ResponseMetadata><RequestId>id-1</RequestId></ResponseMetadata></%bResponse>"


@pytest.mark.parametrize(
    ("action", "result", "xml"),
    [
        ("DeleteMessage", {}, b""),
        ("ReceiveMessage", {}, b"<ReceiveMessageResult></ReceiveMessageResult>"),
        (
            "SendMessage",
            {"MessageId": "1", "MD5OfMessageBody": "2", "SequenceNumber": None},
            b"<SendMessageResult><MessageId>1</MessageId><MD5OfMessageBody>2</MD5OfMessageBody></SendMessageResult>",
        ),
        (
            "ReceiveMessage",
            {
                "Messages": [
                    {
                        "Body": " <a>&\r\n\t",
                        "Attributes": {"SentTimestamp": "5"},
                        "MessageAttributes": {"n": {"DataType": "Binary", "BinaryValue": b"\0"}},
                    },
                    {"Body": ""},
                ]
            },
            b"<ReceiveMessageResult><Message><Body> &lt;a&gt;&amp;&#xD;\n\t</Body>"
            b"<Attribute><Name>SentTimestamp</Name><Value>5</Value></Attribute><MessageAttribute><Name>n</Name>"
            b"<Value><DataType>Binary</DataType><BinaryValue>AA==</BinaryValue></Value></MessageAttribute>"
            b"</Message><Message><Body></Body></Message></ReceiveMessageResult>",
        ),
        (
            "DeleteMessageBatch",
            {"Successful": [{"Id": "a"}, {"Id": "b"}], "Failed": [{"Id": "c", "SenderFault": True}]},
            b"<DeleteMessageBatchResult><DeleteMessageBatchResultEntry><Id>a</Id></DeleteMessageBatchResultEntry>"
            b"<DeleteMessageBatchResultEntry><Id>b</Id></DeleteMessageBatchResultEntry><BatchResultErrorEntry>"
            b"<Id>c</Id><SenderFault>true</SenderFault></BatchResultErrorEntry></DeleteMessageBatchResult>",
        ),
        (
            "ListQueueTags",
            {"Tags": {"k": "v"}},
            b"<ListQueueTagsResult><Tag><Key>k</Key><Value>v</Value></Tag></ListQueueTagsResult>",
        ),
        (
            "ListMessageMoveTasks",
            {"Results": [{"Status": "RUNNING", "StartedTimestamp": 5}]},
            b"<ListMessageMoveTasksResult><ListMessageMoveTasksResultEntry><Status>RUNNING</Status>"
            b"<StartedTimestamp>5</StartedTimestamp></ListMessageMoveTasksResultEntry>"
            b"</ListMessageMoveTasksResult>",
        ),
        (
            "ListDeadLetterSourceQueues",
            {"queueUrls": ["a", "b"], "NextToken": "t"},
            b"<ListDeadLetterSourceQueuesResult><QueueUrl>a</QueueUrl><QueueUrl>b</QueueUrl>"
            b"<NextToken>t</NextToken></ListDeadLetterSourceQueuesResult>",
        ),
    ],
)
def test_the_xml_of_answers(action: str, result: dict[str, Any], xml: bytes) -> None:
    name = action.encode()
    assert query.render(action, result, "id-1") == HEAD % name + xml + TAIL % name


@given(
    st.text(st.characters(codec=None)) | st.text(st.sampled_from("a\r\n\x00\x1f\x7f\ufffd\ufffe\uffff\ud800"))
)
def test_a_text_comes_through_or_is_an_error(text: str) -> None:
    """Planted defects: U+FFFE is let through; a lone surrogate is an error of Python's."""
    result = {"Messages": [{"Body": text}]}
    if XML_CANNOT.search(text):
        with pytest.raises(SqsError) as caught:
            query.render("ReceiveMessage", result, "id-1")
        assert caught.value.name == "InvalidMessageContents"
    else:
        root = ElementTree.fromstring(query.render("ReceiveMessage", result, "id-1"))
        assert (root.findtext(f".//{SPACE}Body") or "") == text


def test_the_xml_of_an_error() -> None:
    error = SqsError("TooManyEntriesInBatchRequest", "11 > 10")
    assert query.render_error(error, "id-1") == (
        b'<?xml version="1.0"?><ErrorResponse xmlns="http://queue.amazonaws.com/doc/2012-11-05/"><Error>'
        b"<Type>Sender</Type><Code>AWS.SimpleQueueService.TooManyEntriesInBatchRequest</Code>"
        b"<Message>11 &gt; 10</Message><Detail/></Error><RequestId>id-1</RequestId></ErrorResponse>"
    )
