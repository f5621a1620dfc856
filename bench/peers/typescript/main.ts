// One process of the three flows on the Resonate TypeScript SDK: `main.ts gateway`, or `main.ts service-a`.
import express from "express";
import { Resonate, type Context } from "@resonatehq/sdk";

const name = process.argv[2];
const resonate = new Resonate({ url: process.env.RESONATE_URL, group: name });

// The await chain.
function* foo(ctx: Context): Generator<any, number, any> {
  return (yield* ctx.rpc<number>("bar", ctx.options({ target: "poll://any@service-b" }))) + 1;
}

function* bar(ctx: Context): Generator<any, number, any> {
  return (yield* ctx.rpc<number>("baz", ctx.options({ target: "poll://any@service-c" }))) + 1;
}

async function baz(_: Context): Promise<number> {
  return 1;
}

// The detached chain.
function* qux(ctx: Context, n: number): Generator<any, void, any> {
  yield* ctx.detached("quz", n + 1, ctx.options({ target: "poll://any@service-e" }));
}

function* quz(ctx: Context, n: number): Generator<any, void, any> {
  yield* ctx.detached("cog", n + 1, ctx.options({ target: "poll://any@service-f" }));
}

async function cog(_: Context, n: number): Promise<void> {
  console.log(n);
}

// The fan-out workflow.
function* zim(ctx: Context, n: number): Generator<any, number, any> {
  const rax = yield* ctx.beginRpc<number>("rax", ctx.options({ target: "poll://any@service-h" }));
  const dop = yield* ctx.beginRpc<number>("dop", ctx.options({ target: "poll://any@service-i" }));
  return n + (yield* rax) + (yield* dop);
}

async function rax(_: Context): Promise<number> {
  return 1;
}

async function dop(_: Context): Promise<number> {
  return 1;
}

const services: Record<string, (ctx: Context, ...args: any[]) => any> = {
  "service-a": foo,
  "service-b": bar,
  "service-c": baz,
  "service-d": qux,
  "service-e": quz,
  "service-f": cog,
  "service-g": zim,
  "service-h": rax,
  "service-i": dop,
};

if (name === "gateway") {
  const app = express();

  app.post("/await-chain", async (request, response) => {
    const target = resonate.options({ target: "poll://any@service-a" });
    response.json({ message: await resonate.rpc(String(request.query.id), "foo", target) });
  });

  app.post("/detached-chain", async (request, response) => {
    const target = resonate.options({ target: "poll://any@service-d" });
    await resonate.beginRpc(String(request.query.id), "qux", 1, target);
    response.json({ message: "detached-chain started" });
  });

  app.post("/fan-out-workflow", async (request, response) => {
    const target = resonate.options({ target: "poll://any@service-g" });
    response.json({ message: await resonate.rpc(String(request.query.id), "zim", 1, target) });
  });

  app.listen(Number(process.env.PORT), "127.0.0.1");
} else {
  resonate.register(services[name].name, services[name]);
}
