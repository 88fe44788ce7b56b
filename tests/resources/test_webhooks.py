"""Webhooks: which are accepted, by us and by the official client, and what their events say."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import openai
import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from starlette.datastructures import Headers

from asyncruns import Client, ConfigurationError, InvalidRequestError, InvalidWebhookSignatureError, RunRef
from asyncruns.resources import webhooks as module
from asyncruns.testing import InMemoryTransport

KEY = secrets.token_bytes(32)
SECRET = "whsec_" + base64.b64encode(KEY).decode()
BODY = json.dumps(
    {
        "object": "event",
        "id": "evt_1",
        "type": "response.completed",
        "created_at": 1750287018,
        "data": {"id": "resp_1"},
    }
)


def signed(
    body: str = BODY, *, key: bytes = KEY, age: float = 0.0, webhook_id: str = "wh_1", version: str = "v1"
) -> dict[str, str]:
    """Sign by the text of the scheme, and not with the library that checks it."""
    at = str(int(time.time() - age))
    digest = hmac.new(key, f"{webhook_id}.{at}.{body}".encode(), hashlib.sha256).digest()
    signature = f"{version},{base64.b64encode(digest).decode()}"
    return {"webhook-id": webhook_id, "webhook-timestamp": at, "webhook-signature": signature}


def client_of(secret: Any = SECRET) -> Client:
    return Client(transport=InMemoryTransport(), webhook_secret=secret)


def changed(body: Mapping[str, Any]) -> str:
    return json.dumps({**json.loads(BODY), **body})


def test_an_event_says_what_happened_and_which_run_to_poll() -> None:
    event = client_of().webhooks.unwrap(BODY.encode(), signed())
    assert (event.id, event.type, event.created_at) == ("evt_1", "response.completed", 1750287018)
    assert event.data == {"id": "resp_1"}
    assert event.ref == RunRef("response", ("resp_1",))
    assert not event.is_repeat
    assert event.to_dict()["ref"] == {"dialect": "response", "ids": ["resp_1"]}


@pytest.mark.parametrize("type_", ["response.cancelled", "response.of_tomorrow"])
def test_every_event_of_a_response_has_its_ref(type_: str) -> None:
    body = changed({"type": type_})
    assert client_of().webhooks.unwrap(body, signed(body)).ref == RunRef("response", ("resp_1",))


@pytest.mark.parametrize(
    ("type_", "is_end"),
    [("completed", True), ("failed", True), ("expired", True), ("cancelled", True), ("in_progress", False)],
)
def test_an_event_of_a_batch_has_its_ref(type_: str, is_end: bool) -> None:
    body = changed({"type": f"batch.{type_}", "data": {"id": "batch_1"}})
    event = client_of().webhooks.unwrap(body, signed(body))
    assert (event.ref, event.is_end) == (RunRef("batch", ("batch_1",)), is_end)


@pytest.mark.parametrize(
    "change",
    [
        {"type": "realtime.call.incoming", "data": {"call_id": "rtc_1", "sip_headers": []}},
        {"type": "of.tomorrow", "more": 1},
        {"type": 7, "data": "text", "created_at": "now"},
        {"data": {"id": 7}},
        {"data": None, "created_at": None},
    ],
)
def test_an_unknown_event_is_returned_without_a_ref(change: dict[str, Any]) -> None:
    body = changed(change)
    event = client_of().webhooks.unwrap(body, signed(body))
    assert event.ref is None
    assert event.id == "evt_1"


def test_a_webhook_that_is_sent_again_is_a_repeat_although_its_signature_is_new() -> None:
    webhooks = client_of().webhooks
    assert not webhooks.unwrap(BODY, signed(age=100.0)).is_repeat
    assert webhooks.unwrap(BODY, signed()).is_repeat
    assert not webhooks.unwrap(BODY, signed(webhook_id="wh_2")).is_repeat
    webhooks.verify_signature(BODY, signed(webhook_id="wh_3"))
    assert not webhooks.unwrap(BODY, signed(webhook_id="wh_3")).is_repeat, "a check is not a delivery"


def test_only_the_newest_ids_are_remembered_and_no_forged_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDS_KEPT", 2)
    webhooks = client_of().webhooks
    with pytest.raises(InvalidWebhookSignatureError):
        webhooks.unwrap(BODY, signed(key=b"another key of some length", webhook_id="wh_1"))
    assert not webhooks.unwrap(BODY, signed(webhook_id="wh_1")).is_repeat
    webhooks.unwrap(BODY, signed(webhook_id="wh_2"))
    assert webhooks.unwrap(BODY, signed(webhook_id="wh_1")).is_repeat
    webhooks.unwrap(BODY, signed(webhook_id="wh_3"))  # so the oldest is wh_2
    assert webhooks.unwrap(BODY, signed(webhook_id="wh_1")).is_repeat
    assert not webhooks.unwrap(BODY, signed(webhook_id="wh_2")).is_repeat


@pytest.mark.parametrize("kind", [dict, Headers, CIMultiDict, lambda headers: CIMultiDictProxy(CIMultiDict(headers))])
def test_headers_may_be_any_mapping_in_any_case(kind: Any) -> None:
    headers = {name.title(): value for name, value in signed().items()}
    assert client_of().webhooks.unwrap(BODY, kind(headers)).id == "evt_1"


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        (SECRET, KEY),
        (f" {SECRET}\n", KEY),
        (SECRET.rstrip("="), KEY),
        (SECRET.removeprefix("whsec_"), KEY),
        ("a secret that is a text", b"a secret that is a text"),
        (["whsec_b2xkZXIgc2VjcmV0LCByZXBsYWNlZA==", SECRET], KEY),
    ],
    ids=["as_it_is", "with_spaces", "without_padding", "without_prefix", "text", "several"],
)
def test_a_secret_has_the_prefix_or_not_and_there_may_be_several(secret: Any, key: bytes) -> None:
    headers = signed(key=key)
    assert client_of(secret).webhooks.unwrap(BODY, headers).id == "evt_1"
    assert client_of(None).webhooks.unwrap(BODY, headers, secret=secret).id == "evt_1"


def test_a_sender_may_sign_with_several_secrets_too() -> None:
    new, old = signed(), signed(key=b"an older key of some length")
    both = new | {"webhook-signature": f"v1a,asymmetric {old['webhook-signature']} {new['webhook-signature']}"}
    assert client_of().webhooks.unwrap(BODY, both).id == "evt_1"


# Signed when the test runs, which may be minutes after it was collected.
REFUSED: dict[str, Callable[[], tuple[str, dict[str, str]]]] = {
    "another body": lambda: (BODY.replace("resp_1", "resp_2"), signed()),
    "another secret": lambda: (BODY, signed(key=b"another key of some length")),
    "another id": lambda: (BODY, signed() | {"webhook-id": "wh_2"}),
    "another time": lambda: (BODY, signed() | {"webhook-timestamp": str(int(time.time()) - 5)}),
    "too old": lambda: (BODY, signed(age=330.0)),
    "too new": lambda: (BODY, signed(age=-330.0)),
    "no header": lambda: (BODY, {}),
    "no time": lambda: (BODY, signed() | {"webhook-timestamp": "now"}),
    "infinite time": lambda: (BODY, signed() | {"webhook-timestamp": "inf"}),
    "no signature": lambda: (BODY, signed() | {"webhook-signature": ""}),
    "malformed": lambda: (BODY, signed() | {"webhook-signature": "v1"}),
    "not base64": lambda: (BODY, signed() | {"webhook-signature": "v1,a"}),
    "not ASCII": lambda: (BODY, signed() | {"webhook-signature": "v1,ä"}),
    "another version": lambda: (BODY, signed(version="v2")),
}


@pytest.mark.parametrize("webhook", REFUSED.values(), ids=REFUSED.keys())
def test_what_the_official_client_refuses_is_refused_here_and_no_secret_is_shown(
    webhook: Callable[[], tuple[str, dict[str, str]]],
) -> None:
    body, headers = webhook()
    official = openai.AsyncOpenAI(api_key="any-key", webhook_secret=SECRET)
    with pytest.raises((ValueError, TypeError)):
        official.webhooks.unwrap(body, headers)
    client = client_of()
    with pytest.raises(InvalidWebhookSignatureError) as error:
        client.webhooks.unwrap(body, headers)
    assert isinstance(error.value, ValueError)
    assert KEY.hex() not in str(error.value)
    for text in (str(error.value), repr(client), repr(client.webhooks)):
        assert SECRET.removeprefix("whsec_") not in text


@pytest.mark.parametrize("age", [0.0, 290.0, -290.0])
@pytest.mark.parametrize("text", [BODY, changed({"data": {"id": "resp_1", "more": "Zürich \N{SNOWMAN}"}})])
def test_what_the_official_client_accepts_is_accepted_here(age: float, text: str) -> None:
    headers = signed(text, age=age)
    official = openai.AsyncOpenAI(api_key="any-key", webhook_secret=SECRET)
    for payload in (text, text.encode()):
        theirs = official.webhooks.unwrap(payload, headers)
        ours = client_of().webhooks.unwrap(payload, headers)
        assert (ours.id, ours.type, ours.created_at) == (theirs.id, theirs.type, theirs.created_at)


@pytest.mark.parametrize("payload", [json.loads(BODY), None, 7])
def test_a_body_that_was_parsed_is_refused_with_words(payload: Any) -> None:
    with pytest.raises(InvalidRequestError, match="raw body"):
        client_of().webhooks.unwrap(payload, signed())


@pytest.mark.parametrize("body", ["no JSON", "[]", ""])
def test_a_genuine_body_that_is_no_json_object_is_an_error_with_words(body: str) -> None:
    with pytest.raises(InvalidRequestError, match="body of this webhook"):
        client_of().webhooks.unwrap(body, signed(body))


def test_a_body_that_is_not_text_is_refused() -> None:
    with pytest.raises(InvalidWebhookSignatureError):
        client_of().webhooks.unwrap(b"\xff", signed())


@pytest.mark.parametrize("payload", [bytearray(BODY.encode()), memoryview(BODY.encode())])
def test_a_body_may_be_any_bytes(payload: Any) -> None:
    assert client_of().webhooks.unwrap(payload, signed()).id == "evt_1"


def test_headers_must_have_items() -> None:
    with pytest.raises(InvalidRequestError, match="those of the request"):
        client_of().webhooks.unwrap(BODY, list(signed().items()))  # type: ignore[arg-type]  # that is the point


class OfAnotherFramework:
    """As of werkzeug: no Mapping."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers

    def items(self) -> Any:
        return iter(self.headers.items())


def test_headers_may_be_those_of_any_framework() -> None:
    assert client_of().webhooks.unwrap(BODY, OfAnotherFramework(signed())).id == "evt_1"
    raw = {name.encode(): value.encode() for name, value in signed().items()}
    assert client_of().webhooks.unwrap(BODY, raw).id == "evt_1"


@pytest.mark.parametrize("value", [7, None, ["v1,x"]])
def test_a_signature_that_is_no_text_is_not_valid(value: Any) -> None:
    with pytest.raises(InvalidWebhookSignatureError):
        client_of().webhooks.unwrap(BODY, {**signed(), "webhook-signature": value})


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        ('{"id": null, "type": 7, "created_at": true, "data": []}', ("", "", None)),
        ('{"id": "evt_1", "created_at": ' + "9" * 400 + "}", ("evt_1", "", None)),
    ],
)
def test_odd_fields_of_a_genuine_webhook_are_left_out(body: str, seen: Any) -> None:
    event = client_of().webhooks.unwrap(body, signed(body))
    assert (event.id, event.type, event.created_at) == seen


def test_a_genuine_body_that_is_nested_too_deeply_is_an_error_with_words() -> None:
    body = "[" * 100_000
    with pytest.raises(InvalidRequestError, match="not JSON"):
        client_of().webhooks.unwrap(body, signed(body))


def test_the_secret_may_be_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    webhooks = client_of(None).webhooks
    monkeypatch.delenv("OPENAI_WEBHOOK_SECRET", raising=False)
    with pytest.raises(ConfigurationError, match="OPENAI_WEBHOOK_SECRET"):
        webhooks.unwrap(BODY, signed())
    monkeypatch.setenv("OPENAI_WEBHOOK_SECRET", SECRET)
    assert webhooks.unwrap(BODY, signed()).id == "evt_1"


@pytest.mark.parametrize("secret", ["", " ", [], [SECRET, ""], 7, "whsec_", "whsec_!", "whsec_abcde"])
def test_a_secret_that_cannot_be_one_is_refused_when_the_client_is_made(secret: Any) -> None:
    with pytest.raises(ConfigurationError, match="webhook secret") as error:
        client_of(secret)
    assert "abcde" not in str(error.value)


def test_without_the_library_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "standardwebhooks", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'asyncruns\[webhooks\]'"):
        client_of().webhooks.unwrap(BODY, signed())
