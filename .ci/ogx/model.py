"""A scripted model: a server of chat completions that answers by what the last message asks for.

The content of the last message is words: `wait=0.2` pauses that long (seconds), `fail=400` answers with this status,
everything else comes back as the answer. It never thinks, and it listens on 127.0.0.1 only.

    python model.py PORT
"""

import asyncio
import sys
import time

from aiohttp import web

MODEL = "scripted"


def text_of(content: object) -> str:
    """Return the text of a message's content, which is a string or a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return " ".join(str(part.get("text", "")) for part in parts)


async def complete(request: web.Request) -> web.Response:
    body = await request.json()
    words = text_of(body["messages"][-1]["content"]).split()
    rules = dict(word.split("=", 1) for word in words if word.startswith(("wait=", "fail=")))
    await asyncio.sleep(float(rules.get("wait", 0)))
    if "fail" in rules:
        error = {
            "message": f"The model fails as it was asked to ({rules['fail']}).",
            "type": "scripted",
            "code": "asked",
        }
        return web.json_response({"error": error}, status=int(rules["fail"]))
    asked, answered = len(words), len(words) + 1
    answer = " ".join(word for word in words if not word.startswith(("wait=", "fail=")))
    return web.json_response(
        {
            "id": "chatcmpl-scripted",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body["model"],
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": f"echo: {answer}"}}
            ],
            "usage": {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered},
        }
    )


async def models(_: web.Request) -> web.Response:
    return web.json_response(
        {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "asyncruns"}]}
    )


async def embed(request: web.Request) -> web.Response:
    body = await request.json()
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    data = [{"object": "embedding", "index": i, "embedding": [float(len(text)), 0.5]} for i, text in enumerate(texts)]
    usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
    return web.json_response({"object": "list", "model": body["model"], "data": data, "usage": usage})


def main() -> None:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    app.router.add_post("/v1/embeddings", embed)
    app.router.add_get("/v1/models", models)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)


if __name__ == "__main__":
    main()
