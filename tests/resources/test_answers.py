"""Good, bad and broken answers: the object, or an error that shows the answer and says what to do."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from asyncruns import APIResponseValidationError, APIStatusError, InvalidRequestError, NotFoundError
from asyncruns import errors as tree
from asyncruns.abc import Transport
from asyncruns.dialects.thread_run import ThreadRunDialect
from asyncruns.http import Request, Response
from asyncruns.resources.assistants import Assistants
from asyncruns.resources.base import Server
from asyncruns.wire import Assistant


class Answer(Transport):
    """Answers every request with the same response."""

    def __init__(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        self.response = Response(status, headers or {}, data)
        self.asked: list[Request] = []

    async def send(self, request: Request) -> Response:
        self.asked.append(request)
        return self.response

    async def aclose(self) -> None:
        pass


async def error_of(status: int, body: object, headers: dict[str, str] | None = None, host: str = "") -> APIStatusError:
    with pytest.raises(APIStatusError) as caught:
        await Assistants(Server(Answer(status, body, headers), ThreadRunDialect(host=host))).retrieve("asst_1")
    return caught.value


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, tree.APIStatusError),
        (400, tree.BadRequestError),
        (401, tree.AuthenticationError),
        (402, tree.APIStatusError),
        (403, tree.PermissionDeniedError),
        (404, tree.NotFoundError),
        (409, tree.ConflictError),
        (410, tree.APIStatusError),
        (422, tree.UnprocessableEntityError),
        (429, tree.RateLimitError),
        (500, tree.InternalServerError),
        (503, tree.InternalServerError),
        (599, tree.InternalServerError),
    ],
)
async def test_each_status_has_its_class(status: int, kind: type[APIStatusError]) -> None:
    body = {"error": {"message": "No.", "type": "a_type", "param": "a_param", "code": "a_code"}}
    error = await error_of(status, body, {"x-request-id": "req_1", "retry-after": "7"})
    assert type(error) is kind
    assert (error.status, error.status_code, error.detail) == (status, status, "No.")
    assert (error.code, error.type, error.param, error.request_id) == ("a_code", "a_type", "a_param", "req_1")
    assert (error.method, error.path) == ("GET", "/assistants/asst_1")
    assert error.body == msgspec.json.encode(body)
    assert error.headers["retry-after"] == "7"
    assert str(error).startswith(f"GET /assistants/asst_1 answered {status}: No. (request id req_1)")


@pytest.mark.parametrize(
    ("body", "detail", "code"),
    [
        pytest.param({"error": {"message": "No.", "code": None}}, "No.", None, id="null code"),
        pytest.param({"error": {"message": "No.", "code": 17}}, "No.", "17", id="a number as code"),
        pytest.param({"error": "No."}, "No.", None, id="text"),
        pytest.param({"error": "No.", "code": "c"}, "No.", "c", id="text and code"),
        pytest.param({"detail": "No."}, "No.", None, id="detail"),
        pytest.param(
            {"detail": [{"loc": ["body"], "msg": "No."}]}, '[{"loc":["body"],"msg":"No."}]', None, id="details"
        ),
        pytest.param({"code": "c", "message": "No.", "request_id": "r"}, "No.", "c", id="flat"),
        pytest.param({"error": None, "message": "No."}, "No.", None, id="null error"),
        pytest.param(
            {"error": {"message": ["No."], "code": {}}}, '{"error":{"message":["No."],"code":{}}}', None, id="odd"
        ),
        pytest.param({"error": ["No."]}, '{"error":["No."]}', None, id="a list as error"),
        pytest.param({}, "{}", None, id="nothing"),
        pytest.param([], "[]", None, id="a list"),
        pytest.param(b"Bad\n  gateway", "Bad gateway", None, id="plain text"),
        pytest.param(b"<html>\n<b>502</b>", "<html> <b>502</b>", None, id="HTML"),
        pytest.param(b'{"error": {"mess', '{"error": {"mess', None, id="truncated"),
        pytest.param(b"\xff\xfe", "\ufffd\ufffd", None, id="not UTF-8"),
        pytest.param(
            b'{"error":{"message":"\xff"}}', '{"error":{"message":"\ufffd"}}', None, id="JSON that is not UTF-8"
        ),
        pytest.param(b"[" * 100_000, "[" * 300 + "...", None, id="deeply nested"),
        pytest.param(b'{"detail":' * 3000 + b"1" + b"}" * 3000, '{"detail":' * 30 + "...", None, id="nested detail"),
        pytest.param(b"", "no details in the response", None, id="empty"),
        pytest.param(b"x" * 5000, "x" * 300 + "...", None, id="long"),
    ],
)
async def test_every_shape_of_error_body_is_understood(body: object, detail: str, code: str | None) -> None:
    error = await error_of(400, body)
    assert (error.detail, error.code) == (detail, code)
    assert str(error) == f"GET /assistants/asst_1 answered 400: {detail}"


@pytest.mark.parametrize(
    ("status", "step"),
    [
        (401, "Check the key, and that it belongs to this base URL."),
        (403, "Check what the key may do."),
        (404, "Check the id, and that the base URL serves this path."),
        (429, "Send fewer requests, or check the quota."),
    ],
)
async def test_the_message_says_what_to_do_next(status: int, step: str) -> None:
    assert str(await error_of(status, {"error": {"message": "No."}})).endswith(f": No. {step}")


@pytest.mark.parametrize("status", [404, 410])
async def test_a_404_of_the_retired_host_explains_that_it_is_retired(status: int) -> None:
    error = await error_of(status, {}, host="api.openai.com")
    assert "api.openai.com no longer serves threads and runs (shut down on 2026-08-26); set base_url" in str(error)
    assert "2026-08-26" not in str(await error_of(status, {}, host="host.example"))
    assert "2026-08-26" not in str(await error_of(500, {}, host="api.openai.com"))


BROKEN = [
    pytest.param(b"<html><body>Log in</body></html>", "<html><body>Log in</body></html>", id="HTML"),
    pytest.param(b"", "empty", id="empty"),
    pytest.param(b"   ", "empty", id="white space"),
    pytest.param(b'{"id": "asst_1", "mod', '{"id": "asst_1", "mod', id="truncated"),
    pytest.param(b'[{"id": "asst_1"}]', '[{"id": "asst_1"}]', id="a list"),
    pytest.param(b'"asst_1"', '"asst_1"', id="a text"),
    pytest.param(b"null", "null", id="null"),
    pytest.param(b'{"name": "no id"}', '{"name": "no id"}', id="no id"),
    pytest.param(b'{"id": 5}', '{"id": 5}', id="an id that is not a text"),
    pytest.param(b'{"id": "\xff"}', '{"id": "\ufffd"}', id="not UTF-8"),
    pytest.param(b'{"id":' * 100_000, '{"id":' * 50 + "...", id="deeply nested"),
    pytest.param(b"\x00" * 1000, "\ufffd" * 300 + "...", id="zeros"),
    pytest.param(b"\x1b[2J\x07", "\ufffd[2J\ufffd", id="terminal control codes"),
]


@pytest.mark.parametrize(("body", "shown"), BROKEN)
async def test_a_broken_body_with_a_good_status_raises_an_error_with_its_first_bytes(body: bytes, shown: str) -> None:
    headers = {"content-type": "text/html", "x-request-id": "req_1"}
    with pytest.raises(APIResponseValidationError) as caught:
        await Assistants(Server(Answer(200, body, headers))).retrieve("asst_1")
    error = caught.value
    assert (error.status, error.body, error.request_id) == (200, body, "req_1")
    assert str(error).startswith("GET /assistants/asst_1 answered 200 with a body that is not of this API (")
    assert f"text/html): {shown} (request id req_1). Is there a proxy in between" in str(error)
    assert not isinstance(error, APIStatusError)
    assert isinstance(error.__cause__, msgspec.DecodeError)


@pytest.mark.parametrize("status", [200, 201, 202, 206])
async def test_any_good_status_is_accepted(status: int) -> None:
    assert await Assistants(Server(Answer(status, {"id": "asst_1"}))).retrieve("asst_1") == Assistant(id="asst_1")


@pytest.mark.parametrize("status", [204, 304, 100])
async def test_a_status_without_a_body_raises(status: int) -> None:
    with pytest.raises(tree.APIError):
        await Assistants(Server(Answer(status, b""))).retrieve("asst_1")


async def test_a_deletion_returns_what_the_server_reports() -> None:
    answer = {"id": "asst_1", "object": "assistant.deleted", "deleted": False}
    found = await Assistants(Server(Answer(200, answer))).delete("asst_1")
    assert (found.id, found.deleted) == ("asst_1", False)
    with pytest.raises(NotFoundError):
        await Assistants(Server(Answer(404, {}))).delete("asst_1")


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"name": "\ud800"}, id="not Unicode"),
        pytest.param({"metadata": {"a": object()}}, id="an object of some class"),
        pytest.param({"metadata": {("a", "b"): "c"}}, id="a key that is not a text"),
        pytest.param({"temperature": 1j}, id="a complex number"),
        pytest.param({"tools": 5j}, id="not a list"),
    ],
)
async def test_parameters_without_a_json_form_are_refused_before_anything_is_sent(given: dict[str, Any]) -> None:
    transport = Answer(200, {"id": "asst_1"})
    with pytest.raises(InvalidRequestError, match="can't be written as JSON"):
        await Assistants(Server(transport)).create(model="m", **given)
    holds_itself: dict[str, Any] = {}
    holds_itself["a"] = holds_itself
    with pytest.raises(InvalidRequestError, match="can't be written as JSON"):
        await Assistants(Server(transport)).create(model="m", metadata=holds_itself)
    assert transport.asked == []
