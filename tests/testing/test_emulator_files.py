"""The files of the emulator, over a socket and in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from batch_doors import BOUNDARY, Door, Held, form_of, lines_of, opened

from asyncruns import Client
from asyncruns.errors import APIConnectionError, NotFoundError
from asyncruns.testing import Emulator, Fault, InMemoryTransport


@pytest.fixture(params=["socket", "memory"])
async def door(request: pytest.FixtureRequest) -> AsyncIterator[Door]:
    async with opened(request.param) as door:
        yield door


async def test_an_upload_is_kept_as_it_came(door: Door) -> None:
    content = b" --a-boundary\r\n\x00\xff\r\n--a-bound\r\n\r\n"
    answer = await door.upload(content, filename="a.jsonl")
    file = answer.json
    assert file["id"].startswith("file-")
    assert file == {
        "id": file["id"],
        "object": "file",
        "bytes": len(content),
        "created_at": int(door.server.now()),
        "expires_at": None,
        "filename": "a.jsonl",
        "purpose": "batch",
        "status": "processed",
        "status_details": None,
    }
    assert (await door.ask("GET", f"/files/{file['id']}")).json == file == door.server.files[file["id"]]
    got = await door.ask("GET", f"/files/{file['id']}/content")
    assert (got.status, got.headers["Content-Type"], got.body) == (200, "application/octet-stream", content)


@pytest.mark.parametrize(
    ("asked", "status", "shown", "body"),
    [
        ("bytes=4-", 206, "bytes 4-9/10", b"456789"),
        ("bytes=2-3", 206, "bytes 2-3/10", b"23"),
        ("bytes=8-99", 206, "bytes 8-9/10", b"89"),
        ("bytes=-3", 206, "bytes 7-9/10", b"789"),
        ("bytes=10-", 416, "bytes */10", b""),
        ("bytes=5-4", 200, None, b"0123456789"),
        ("lines=1-2", 200, None, b"0123456789"),
        ("bytes=-", 200, None, b"0123456789"),
        (f"bytes={'9' * 5000}-", 200, None, b"0123456789"),
    ],
)
async def test_a_range_is_answered_exactly(door: Door, asked: str, status: int, shown: str | None, body: bytes) -> None:
    file_id = (await door.upload(b"0123456789")).json["id"]
    got = await door.ask("GET", f"/files/{file_id}/content", headers={"Range": asked})
    assert (got.status, got.headers.get("Content-Range"), got.body) == (status, shown, body)


async def test_files_are_listed_by_page_purpose_and_order(door: Door) -> None:
    ids = []
    for number in range(4):
        purpose = "batch" if number % 2 else "user_data"
        ids.append((await door.upload(b"x", purpose=purpose)).json["id"])
        await asyncio.sleep(1.0)
    page = (await door.ask("GET", "/files", limit=3)).json
    assert [file["id"] for file in page["data"]] == ids[:0:-1]
    assert (page["has_more"], page["first_id"], page["last_id"]) == (True, ids[3], ids[1])
    rest = (await door.ask("GET", "/files", after=ids[1])).json
    assert ([file["id"] for file in rest["data"]], rest["has_more"]) == (ids[:1], False)
    batch = (await door.ask("GET", "/files", purpose="batch", order="asc")).json
    assert [file["id"] for file in batch["data"]] == [ids[1], ids[3]]
    assert "above maximum" in (await door.ask("GET", "/files", limit=10_001)).message


async def test_a_deleted_file_is_gone(door: Door) -> None:
    file_id = (await door.upload(b"x")).json["id"]
    deleted = await door.ask("DELETE", f"/files/{file_id}")
    assert deleted.json == {"id": file_id, "object": "file", "deleted": True}
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        answer = await door.ask(method, f"/files/{file_id}{path}")
        assert (answer.status, answer.message) == (404, f"No such File object: {file_id}")
    assert (await door.ask("GET", "/files")).json["data"] == []


async def test_a_file_expires(door: Door) -> None:
    fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    file = (await door.upload(b"x", **fields)).json
    assert file["expires_at"] == file["created_at"] + 3600
    await asyncio.sleep(3601)
    assert (await door.ask("GET", f"/files/{file['id']}")).status == 404
    assert (await door.ask("GET", "/files")).json["data"] == []


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"purpose": "pictures"}, "Invalid value: 'pictures'. Supported values are: 'fine-tune' and"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "60"}, "integer below minimum"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "soon"}, "Missing required parameter"),
        ({"expires_after[anchor]": "ended_at"}, "Supported values are: 'created_at'"),
    ],
)
async def test_a_wrong_field_is_refused(door: Door, fields: dict[str, str], wrong: str) -> None:
    answer = await door.upload(b"x", **fields)
    assert answer.status == 400
    assert wrong in answer.message


@pytest.mark.parametrize(
    ("body", "content_type", "wrong"),
    [
        (b"{}", "application/json", "expected multipart/form-data"),
        (b"{}", "multipart/form-data", "expected multipart/form-data"),
        (b"", f"multipart/form-data; boundary={BOUNDARY}", "Could not parse multipart form"),
        (form_of(b"x", "a", {})[:-20], f"multipart/form-data; boundary={BOUNDARY}", "Could not parse multipart form"),
        (form_of(b"x", "a", {}), "multipart/form-data; boundary=other", "Could not parse multipart form"),
        (
            b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--\r\n",
            "multipart/form-data; boundary=b",
            "Could not parse",
        ),
        (b"--b\r\nbroken\r\n--b--\r\n", "multipart/form-data; boundary=b", "Could not parse multipart form"),
        (form_of(b"x", "a", {}), f"multipart/form-data; boundary={BOUNDARY}", "parameter: 'purpose'"),
        (b"--b--\r\n", "multipart/form-data; boundary=b", "Missing required parameter: 'file'"),
        (
            b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n'
            b'--b\r\nContent-Disposition: form-data; name="a[b]"\r\n\r\ny\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
            "Could not parse multipart form",
        ),
        (
            b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
            "Invalid type for 'file': expected a file",
        ),
    ],
)
async def test_a_form_that_cannot_be_read_is_refused(door: Door, body: bytes, content_type: str, wrong: str) -> None:
    answer = await door.ask("POST", "/files", upload=Held(body, content_type))
    assert answer.status == 400
    assert wrong in answer.message
    assert dict(door.server.files) == {}


@pytest.mark.parametrize("name", ["a b.jsonl", "é€.jsonl", "a%22b%0D%0A.jsonl", "a;b=c.jsonl", "..", "a'b"])
async def test_a_name_stays_as_it_was_sent(door: Door, name: str) -> None:
    assert (await door.upload(b"x", filename=name)).json["filename"] == name


async def test_the_form_of_another_library_is_read(emulator: Emulator) -> None:
    form = aiohttp.FormData({"purpose": "batch"})
    form.add_field("file", lines_of(3), filename="a.jsonl", content_type="application/jsonl")
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{emulator.base_url}/files", data=form) as response:
            file = await response.json()
        async with session.get(f"{emulator.base_url}/files/{file['id']}/content") as response:
            assert await response.read() == lines_of(3)


async def test_an_upload_may_be_larger_than_other_bodies() -> None:
    async with opened("socket") as door:
        content = b"x" * 3 * 1024**2
        assert (await door.upload(content)).json["bytes"] == len(content)
        assert (await door.ask("POST", "/batches", {"metadata": {"a": "x" * 1024**2}})).status == 413


async def test_a_lagging_replica_has_no_new_file(door: Door) -> None:
    await asyncio.sleep(10)
    file_id = (await door.upload(b"x")).json["id"]
    door.server.inject(*(Fault(on=on, stale=5.0) for on in ("file", "files", "file_content")))
    assert (await door.ask("GET", f"/files/{file_id}")).status == 404
    assert (await door.ask("GET", "/files")).json["data"] == []
    assert (await door.ask("GET", f"/files/{file_id}/content")).status == 404
    assert (await door.ask("GET", f"/files/{file_id}")).status == 200


async def test_a_fault_may_be_limited_to_one_file(door: Door) -> None:
    first, second = [(await door.upload(b"x")).json["id"] for _ in range(2)]
    door.server.inject(Fault(on="file_content", run_id=second, status=500, times=None))
    assert [(await door.ask("GET", f"/files/{id}/content")).status for id in (first, second)] == [200, 500]


@pytest.mark.parametrize("kind", ["socket", "memory"])
async def test_the_client_takes_up_a_download_that_is_cut(kind: str) -> None:
    content = bytes(range(256)) * 4096
    async with opened(kind) as door:
        server: Any = door.server
        client = Client(transport=server) if isinstance(server, InMemoryTransport) else Client(server.base_url)
        async with client:
            file = await client.files.create(file=('a"b.jsonl', content), purpose="batch")
            assert server.files[file.id]["filename"] == "a%22b.jsonl"
            server.inject(Fault(on="file_content", damage="cut", times=3))
            assert await (await client.files.content(file.id)).read() == content
            shown = [seen.headers.get("range") for seen in server.requests if seen.operation == "file_content"]
            assert len(shown) == 4
            assert shown[0] is None
            assert all(each is not None and each.startswith("bytes=") for each in shown[1:])
            await client.files.delete(file.id)
            with pytest.raises(NotFoundError, match="No such File object"):
                await client.files.retrieve(file.id)


async def test_an_upload_without_an_answer_was_made(door: Door) -> None:
    door.server.inject(Fault(on="create_file", drop=True, acts=True))
    with pytest.raises((APIConnectionError, aiohttp.ClientError)):
        await door.upload(b"x")
    assert len(door.server.files) == 1
