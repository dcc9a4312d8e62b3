"""An upstream that answers each completion after 200 ms."""

import asyncio
import sys

from aiohttp import web

ANSWER_S = 0.2
ANSWER = {
    "id": "x",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 200}}],
    "usage": {"prompt_tokens": 200, "completion_tokens": 200, "total_tokens": 400},
}


async def complete(request: web.Request) -> web.Response:
    """Answer a completion."""
    await request.read()
    await asyncio.sleep(ANSWER_S)
    return web.json_response(ANSWER)


async def main() -> None:
    """Serve until killed."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=512).start()
    print(f"listening on http://127.0.0.1:{runner.addresses[0][1]}", file=sys.stderr, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
