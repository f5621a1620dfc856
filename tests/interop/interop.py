"""A worker of service-c (`worker`) and a client of service-a (`client`), on the Python SDK."""

import asyncio
import json
import os
import sys
import time
import urllib.request

from resonate.context import Context
from resonate.resonate import Resonate
from resonate.retry import Never

URL = os.environ.get("RESONATE_URL", "http://127.0.0.1:8001")


def traceparent(promise):
    """The SDK does not pass the headers to functions, but the promise has them."""
    head = {"corrId": "interop", "version": "2026-04-01"}
    body = json.dumps({"kind": "promise.get", "head": head, "data": {"id": promise}}).encode()
    request = urllib.request.Request(URL, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["data"]["promise"]["param"].get("headers", {}).get("traceparent")


async def baz(ctx: Context, options: dict | None) -> int:
    promise = ctx.info.id
    print(f"baz of {promise} runs in Python, traceparent {traceparent(promise)}", flush=True)
    return 1


async def main():
    if sys.argv[1] == "worker":
        # Without retries an error of the function is shown; it is retried for minutes otherwise.
        resonate = Resonate(
            url=URL, group="service-c", pid="service-c-python", retry_policy=Never()
        )
        resonate.register(baz)
        print("waiting for calls of baz; Ctrl-C ends", flush=True)
        await asyncio.Event().wait()
    resonate = Resonate(url=URL, group="interop")
    promise = f"python-{time.time_ns()}"
    handle = resonate.options(target="poll://any@service-a").rpc(promise, "foo", None)
    answer = await handle.result()
    print(f"foo answered {answer}, flow {promise}")
    await resonate.stop()
    sys.exit(answer != 3)


asyncio.run(main())
