"""Texts with which another process goes on with a watch. Sends nothing, and writes nothing down.

A token must hold no credential: no key, no header, no URL. With a journal it names the watch there; without one it has
what a journal would have.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from asyncruns._loop import loop_time, wall_time
from asyncruns.abc import Journal, RunClient
from asyncruns.errors import InvalidRequestError
from asyncruns.lifecycle import Call, End, EndKind, Reason, RunLifecycle, RunRef
from asyncruns.lifecycle.records import CallRecord, WatchRecord, key_of_call, key_of_run
from asyncruns.wire.plain import is_plain, plain_value

TOKEN_VERSION: Final = 1
_SHAPE: Final = re.compile(r"asyncruns(\d{1,9})\.([A-Za-z0-9_-]+)")


class Token(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a token says.

    Attributes:
        ref: The run, when the token was made.
        key: The key of the watch in its journal; "" for a watch without one.
        record: What a journal would have of the watch, if it has none, or forgets it.
        parameters: What the client needs to go on, of its dialect.
        lacks: Why such parameters are needed and were left out; "" if they were not.
    """

    ref: RunRef
    key: str = ""
    record: WatchRecord | None = None
    parameters: dict[str, Any] | None = None
    lacks: str = ""

    @property
    def run(self) -> Token | RunRef:
        """What to choose a client by: this token, if the client needs its parameters."""
        return self if self.parameters is not None or self.lacks else self.ref

    def check_has_all(self) -> None:
        """Check that no parameters were left out.

        Raises:
            InvalidRequestError: They were.
        """
        if self.lacks:
            raise InvalidRequestError(
                f"This token of {self.ref} has not all that is needed to go on, as {self.lacks}, which may be secret: "
                "pass client.responses.continued(parameters) as the client, with the parameters of the response"
            )


class HandedOver(Struct, frozen=True):
    """What a token needs to know of a watch that has finished, or was left.

    Attributes:
        key: The key of the watch in its journal; "" without one.
        is_kept: Whether the journal keeps the watch, so that its key suffices.
        calls: As for `WatchRecord`, as are `submitting` and `outcome`.
    """

    key: str = ""
    is_kept: bool = False
    calls: tuple[CallRecord, ...] = ()
    submitting: tuple[str, ...] = ()
    outcome: dict[str, Any] | None = None


Before = tuple[tuple[CallRecord, ...], tuple[str, ...]]


def handed_over(key: str, machine: RunLifecycle, end: End | None, before: Before = ((), ())) -> HandedOver:
    """Return what a token needs to know of a watch.

    Args:
        key: The key of the watch in its journal; "" without one.
        machine: Its lifecycle.
        end: How it finished; None if it goes on, or was left before.
        before: What an earlier watch had left, if nothing was submitted since: calls, and those perhaps submitted.
    """
    if key and (end is None or end.kind is EndKind.NEEDS_CALLER or end.reason is Reason.TAKEN_OVER):
        return HandedOver(key, is_kept=True)
    before_calls, lost = before
    round_ = machine.open_round(loop_time())
    accepted_at = 0.0 if round_.accepted_for is None else wall_time() - round_.accepted_for
    answered = [
        CallRecord(key=key_of_call(call), call_id=call.id, output=_written(output), accepted_at=accepted_at)
        for call, output in round_.answers
    ]
    begun = [CallRecord(key=key_of_call(call), call_id=call.id) for call in round_.begun]
    is_unsure = round_.is_unsure or (end is not None and end.reason is Reason.SUBMIT_LOST)
    left = [{"id": call.id, "name": call.name, "arguments": _written(call.arguments)} for call in round_.left]
    return HandedOver(
        key,
        calls=tuple({call.key: call for call in (*before_calls, *begun, *answered)}.values()),
        submitting=tuple(call.key for call in answered) if is_unsure else lost,
        outcome={"calls": left} if left else None,
    )


def token_for(ref: RunRef, refs: tuple[RunRef, ...], label: object, handed: HandedOver, client: RunClient[Any]) -> str:
    """Return the token of a watch; a label that is no plain JSON is left out.

    Args:
        ref: The run.
        refs: All runs of the watch.
        label: What the caller gave as `label=`.
        handed: What is known of the watch.
        client: The client of the watch.
    """
    if handed.is_kept:
        return token_text(Token(ref=ref, key=handed.key))
    record = WatchRecord(
        key=handed.key or key_of_run(refs[0]),
        ref=ref,
        refs=refs,
        label=plain_value(label) if is_plain(label) else None,
        calls=handed.calls,
        submitting=handed.submitting,
        outcome=handed.outcome,
    )
    parameters: Mapping[str, Any] | None = None
    lacks = ""
    try:
        parameters = client.dialect.carried_parameters()
    except InvalidRequestError as error:
        lacks = str(error)
    given = None if parameters is None else {**parameters}
    return token_text(Token(ref=ref, key=handed.key, record=record, parameters=given, lacks=lacks))


def token_of(ref: RunRef, label: object, client: RunClient[Any]) -> Token:
    """Return the token of a watch that is to begin, without a journal; a label that is no plain JSON is left out."""
    return token_in(token_for(ref, (ref,), label, HandedOver(), client))


def with_outputs(token: Token, outputs: Iterable[tuple[Call, str, bool]], *, is_unsure: bool = False) -> Token:
    """Return a token whose watch submits these outputs, if the run asks for them.

    Args:
        token: A token without a journal.
        outputs: Calls, each with the text of its output, and whether that is an error of ours.
        is_unsure: Whether they may have been submitted already, and a poll can't show that.
    """
    record = token.record or WatchRecord(key=key_of_run(token.ref), ref=token.ref, refs=(token.ref,))
    given = [
        CallRecord(key=key_of_call(call), call_id=call.id, output=_written(text), failed=failed)
        for call, text, failed in outputs
    ]
    calls = {call.key: call for call in (*record.calls, *given)}
    submitting = tuple(call.key for call in given) if is_unsure else record.submitting
    return replace(token, record=replace(record, calls=tuple(calls.values()), submitting=submitting))


def token_in(text: object) -> Token:
    """Return what a token says.

    Raises:
        InvalidRequestError: It is no token, or not a whole one, or one of a newer version.
    """
    found = _SHAPE.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None:
        raise InvalidRequestError(
            'token must be what watcher.token() or outcome.token returned, which begins with "asyncruns1."; '
            f"got {'another text, or a part of one' if isinstance(text, str) else type(text).__name__}"
        )
    version, data = int(found[1]), found[2]
    if version != TOKEN_VERSION:
        raise InvalidRequestError(
            f"This token has version {version}, and this asyncruns reads version {TOKEN_VERSION}: install a newer "
            "asyncruns"
        )
    try:
        token = msgspec.json.decode(base64.urlsafe_b64decode(data + "=" * (-len(data) % 4)), type=Token)
        token = replace(token, ref=RunRef.of(token.ref))
    except (ValueError, msgspec.MsgspecError, InvalidRequestError) as error:
        raise InvalidRequestError(f"This token is damaged, or not whole: {error}") from None
    if not token.ref.ids or not (token.key or token.record):
        raise InvalidRequestError("This token is damaged, or not whole: it names no watch")
    return token


def token_alone(text: object, **others: object) -> Token:
    """Return what a token says that was given in place of a run.

    Raises:
        InvalidRequestError: As for `token_in`; or a run is given as well.
    """
    if any(other is not None for other in others.values()):
        raise InvalidRequestError(f"A token names a watch by itself: leave out {', '.join(others)}")
    return token_in(text)


def check_has_journal(token: Token, journal: Journal | None) -> None:
    """Check that there is a journal for a token that is of one.

    Raises:
        InvalidRequestError: There is none.
    """
    if token.key and journal is None:
        raise InvalidRequestError(
            f"This token of {token.ref} is of a watch in a journal, and there is none here: pass the same journal, as "
            "Client(journal=...) or Fleet(client, journal=...)"
        )


def token_text(token: Token) -> str:
    """Return a token as the text that callers get."""
    said = msgspec.to_builtins(token)
    if (record := said.get("record")) is not None:
        record["calls"] = [_without(call, (None, False, 0.0)) for call in record["calls"]]
        said["record"] = _without(record, (None, "", 0.0, [], ())) | {"label": record["label"]}
    data = base64.urlsafe_b64encode(msgspec.json.encode(said)).decode().rstrip("=")
    return f"asyncruns{TOKEN_VERSION}.{data}"


def _without(fields: Mapping[str, Any], defaults: tuple[object, ...]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in defaults}


def _written(text: str) -> str:
    return text.encode(errors="replace").decode()
