"""The query protocol against a client's own code: botocore's forms are read, and it reads the answers."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import pytest
from botocore.parsers import QueryParser
from botocore.serialize import QuerySerializer
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.server.sqs.old_model import model, values
from windlass.server.sqs import query
from windlass.server.sqs.errors import XML_CANNOT, SqsError
from windlass.server.sqs.requests import ACTIONS

texts = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["null", "a=b&c", "100%", "%41", "1+1", "\\x41\\", "a\r\nb", "\u00e9\U0001f600", "<a>&amp;]]>"]
)
carried = texts.map(lambda text: XML_CANNOT.sub("", text))


def without(nothing: Any, value: Any) -> Any:
    """A value without the members that are `nothing`."""
    if isinstance(value, dict):
        return {key: without(nothing, inner) for key, inner in value.items() if inner != nothing}
    return [without(nothing, inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("action", sorted(ACTIONS))
@given(st.data())
def test_what_botocore_sends_is_read(action: str, data: st.DataObject) -> None:
    """Every parameter of every action. Planted defects: msgspec's lax mode (the binary value `null` is lost),
    a backslash that is not doubled before percent signs are decoded."""
    operation = model().operation_model(action)
    asked = data.draw(values(operation.input_shape, texts))
    form = QuerySerializer().serialize_to_request(asked, operation)["body"]
    for space in ("+", "%20"):
        body = urlencode(form, quote_via=quote).replace("%20", space).encode()
        got, shape = query.parse(body)
        assert (got, type(shape)) == (action, ACTIONS[action])
        assert without(None, msgspec.to_builtins(shape, builtin_types=(bytes,))) == asked


def read(action: str, answer: bytes) -> Any:
    operation = model().operation_model(action)
    return QueryParser().parse({"body": answer, "headers": {}, "status_code": 200}, operation.output_shape)


@pytest.mark.parametrize("action", sorted(ACTIONS))
@given(st.data())
def test_botocore_reads_what_is_answered(action: str, data: st.DataObject) -> None:
    """Every member of every result. Planted defects: a carriage return as it is, `]]>` as it is, the entries
    of ChangeMessageVisibilityBatch under the name of another action's."""
    shape = model().operation_model(action).output_shape
    result = data.draw(values(shape, carried)) if shape else {}
    got = read(action, query.render(action, result, "id & 1"))
    assert got.pop("ResponseMetadata")["RequestId"] == "id & 1"
    assert got == without([], result)


@given(st.sampled_from(["QueueDoesNotExist", "InternalFailure", "InvalidParameterValue"]), texts)
def test_botocore_reads_errors(name: str, message: str) -> None:
    """Planted defect: the name of the JSON protocol instead of the code, which old clients look for."""
    error = SqsError(name, message + "\0\ufffe\ud800")
    got = QueryParser().parse(
        {"body": query.render_error(error, "id-1"), "headers": {}, "status_code": error.status}, None
    )
    assert got["Error"] == {
        "Type": "Receiver" if name == "InternalFailure" else "Sender",
        "Code": "AWS.SimpleQueueService.NonExistentQueue" if name == "QueueDoesNotExist" else name,
        "Message": XML_CANNOT.sub("\ufffd", message) + "\ufffd" * 3,
        "Detail": None,
    }
    assert got["ResponseMetadata"]["RequestId"] == "id-1"
