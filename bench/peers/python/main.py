"""One process of the three flows on the Resonate Python SDK: `main.py gateway`, or `main.py service-a`."""

import asyncio
import os
import sys

from aiohttp import web
from resonate.context import Context
from resonate.resonate import Resonate


# The await chain.
async def foo(ctx: Context) -> int:
    return await ctx.options(target="service-b").rpc("bar") + 1


async def bar(ctx: Context) -> int:
    return await ctx.options(target="service-c").rpc("baz") + 1


async def baz(ctx: Context) -> int:
    return 1


# The detached chain.
async def qux(ctx: Context, n: int) -> None:
    await ctx.options(target="service-e").detached("quz", n + 1)


async def quz(ctx: Context, n: int) -> None:
    await ctx.options(target="service-f").detached("cog", n + 1)


async def cog(ctx: Context, n: int) -> None:
    print(n, flush=True)


# The fan-out workflow.
async def zim(ctx: Context, n: int) -> int:
    rax = ctx.options(target="service-h").rpc("rax")
    dop = ctx.options(target="service-i").rpc("dop")
    return n + await rax + await dop


async def rax(ctx: Context) -> int:
    return 1


async def dop(ctx: Context) -> int:
    return 1


SERVICES = {
    "service-a": foo,
    "service-b": bar,
    "service-c": baz,
    "service-d": qux,
    "service-e": quz,
    "service-f": cog,
    "service-g": zim,
    "service-h": rax,
    "service-i": dop,
}


def gateway(resonate: Resonate) -> web.Application:
    async def await_chain(request: web.Request) -> web.Response:
        handle = resonate.options(target="service-a").rpc(request.query["id"], "foo")
        return web.json_response({"message": await handle.result()})

    async def detached_chain(request: web.Request) -> web.Response:
        handle = resonate.options(target="service-d").rpc(request.query["id"], "qux", 1)
        await handle.id()
        return web.json_response({"message": "detached-chain started"})

    async def fan_out_workflow(request: web.Request) -> web.Response:
        handle = resonate.options(target="service-g").rpc(request.query["id"], "zim", 1)
        return web.json_response({"message": await handle.result()})

    app = web.Application()
    app.router.add_post("/await-chain", await_chain)
    app.router.add_post("/detached-chain", detached_chain)
    app.router.add_post("/fan-out-workflow", fan_out_workflow)
    return app


async def main(name: str) -> None:
    resonate = Resonate(url=os.environ["RESONATE_URL"], group=name)
    if name == "gateway":
        runner = web.AppRunner(gateway(resonate), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", int(os.environ["PORT"])).start()
    else:
        resonate.register(SERVICES[name])
    await asyncio.Event().wait()


asyncio.run(main(sys.argv[1]))
