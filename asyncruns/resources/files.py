"""Files: https://platform.openai.com/docs/api-reference/files"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, Unpack

from msgspec import UNSET
from msgspec.structs import replace

from asyncruns.errors import APIError
from asyncruns.resources.adoption import is_lost
from asyncruns.resources.base import PageCall, Resource, Server
from asyncruns.resources.file_content import FileContent, open_content
from asyncruns.resources.options import CallOptions, make_request
from asyncruns.resources.uploads import GivenFile, upload_of
from asyncruns.wire import Deleted, FileObject, Maybe
from asyncruns.wire.shown_text import on_one_line

LARGEST_PAGE: Final = 10_000


class Files(Resource):
    """`client.files`. Every method also takes the `CallOptions`.

    The `request_timeout` of an upload or a download limits each pause without progress, not the whole, which takes as
    long as it takes.
    """

    def __init__(self, server: Server) -> None:
        limits = server.limits
        super().__init__(server if limits is None else replace(server, limits=replace(limits, page=LARGEST_PAGE)))

    async def create(
        self,
        *,
        file: GivenFile,
        purpose: str,
        expires_after: Maybe[Mapping[str, Any]] = UNSET,
        **options: Unpack[CallOptions],
    ) -> FileObject:
        """Upload a file, which is read while it is sent.

        Safe to cancel; the file may then exist or not.

        Args:
            file: Bytes, a path, an open binary file, which is sent from its beginning and stays open, or a tuple of the
                name, one of these, and, if wanted, the content type.
            purpose: What the server uses it for: "batch", "assistants", "vision", "user_data", ...
            expires_after: `{"anchor": "created_at", "seconds": ...}`; by default the file stays until it is deleted,
                except with some purposes.

        Raises:
            InvalidRequestError: The file can't be read, or was changed while it was sent; the server has none then.
            APIError: The server refused the request; or the answer was lost, and it is not known whether the file
                exists, as the message then says. The request is not repeated then.
        """
        fields = {"purpose": purpose, "expires_after": expires_after, **(options.pop("extra_body", None) or {})}
        request = make_request("POST", "/files", None, None, options)
        upload = await upload_of(file, fields)
        try:
            return await self._send(replace(request, upload=upload), FileObject)
        except APIError as error:
            if is_lost(error):
                listed = f"files.list(purpose={on_one_line(purpose)!r})"
                error._extend(f"The file {upload.shown} may exist: check `{listed}` before you upload it again.")
            raise

    async def retrieve(self, file_id: str, **options: Unpack[CallOptions]) -> FileObject:
        """Fetch a file, without its content. Safe to cancel.

        Raises:
            APIError: There is no such file, or the server did not answer.
        """
        return await self._ask(FileObject, "GET", "files", file_id, options=options)

    def list(
        self,
        *,
        purpose: str | None = None,
        limit: int | None = None,
        order: Literal["asc", "desc"] | None = None,
        after: str | None = None,
        **options: Unpack[CallOptions],
    ) -> PageCall[FileObject]:
        """List files: `await` for one page, `async for` for all. Safe to cancel.

        Args:
            purpose: Only files with this purpose.
            limit: Items per page, 1 to 10,000, which is the server's default.
            order: Oldest ("asc") or newest ("desc") first, by creation; the server's default is "desc".
            after: Id of the item before the page.
        """
        query = {"purpose": purpose, "limit": limit, "order": order, "after": after}
        return self._list(FileObject, "files", query=query, options=options)

    async def delete(self, file_id: str, **options: Unpack[CallOptions]) -> Deleted:
        """Delete a file. Safe to cancel; it may then be deleted or not.

        Raises:
            APIError: There is no such file, or the server did not answer.
        """
        return await self._ask(Deleted, "DELETE", "files", file_id, options=options)

    async def content(self, file_id: str, **options: Unpack[CallOptions]) -> FileContent:
        """Begin to read the content of a file; see `FileContent` for how to go on. Safe to cancel.

        Raises:
            APIError: There is no such file, the server does not return its content, or it did not answer.
        """
        return await open_content(self._server, self._request("GET", "files", file_id, "content", options=options))
