// One process of the three flows on the Restate TypeScript SDK: `main.ts gateway`, or `main.ts service-a`.
import express from "express";
import * as restate from "@restatedev/restate-sdk";
import * as clients from "@restatedev/restate-sdk-clients";

// The await chain.
const serviceA = restate.service({
  name: "ServiceA",
  handlers: {
    foo: async (ctx: restate.Context): Promise<number> =>
      (await ctx.serviceClient(serviceB).bar()) + 1,
  },
});

const serviceB = restate.service({
  name: "ServiceB",
  handlers: {
    bar: async (ctx: restate.Context): Promise<number> =>
      (await ctx.serviceClient(serviceC).baz()) + 1,
  },
});

const serviceC = restate.service({
  name: "ServiceC",
  handlers: { baz: async (_: restate.Context): Promise<number> => 1 },
});

// The detached chain.
const serviceD = restate.service({
  name: "ServiceD",
  handlers: {
    qux: async (ctx: restate.Context, n: number) => {
      ctx.serviceSendClient(serviceE).quz(n + 1);
    },
  },
});

const serviceE = restate.service({
  name: "ServiceE",
  handlers: {
    quz: async (ctx: restate.Context, n: number) => {
      ctx.serviceSendClient(serviceF).cog(n + 1);
    },
  },
});

const serviceF = restate.service({
  name: "ServiceF",
  handlers: {
    cog: async (_: restate.Context, n: number) => {
      console.log(n);
    },
  },
});

// The fan-out workflow.
const serviceG = restate.service({
  name: "ServiceG",
  handlers: {
    zim: async (ctx: restate.Context, n: number): Promise<number> => {
      const rax = ctx.serviceClient(serviceH).rax();
      const dop = ctx.serviceClient(serviceI).dop();
      return n + (await rax) + (await dop);
    },
  },
});

const serviceH = restate.service({
  name: "ServiceH",
  handlers: { rax: async (_: restate.Context): Promise<number> => 1 },
});

const serviceI = restate.service({
  name: "ServiceI",
  handlers: { dop: async (_: restate.Context): Promise<number> => 1 },
});

const services = {
  "service-a": serviceA,
  "service-b": serviceB,
  "service-c": serviceC,
  "service-d": serviceD,
  "service-e": serviceE,
  "service-f": serviceF,
  "service-g": serviceG,
  "service-h": serviceH,
  "service-i": serviceI,
};

const name = process.argv[2];
const port = Number(process.env.PORT);

if (name === "gateway") {
  const ingress = clients.connect({ url: process.env.RESTATE_URL! });
  const idempotencyKey = (request: express.Request) => String(request.query.id);
  const app = express();

  app.post("/await-chain", async (request, response) => {
    const options = clients.rpc.opts({ idempotencyKey: idempotencyKey(request) });
    response.json({ message: await ingress.serviceClient(serviceA).foo(options) });
  });

  app.post("/detached-chain", async (request, response) => {
    const options = clients.rpc.sendOpts({ idempotencyKey: idempotencyKey(request) });
    await ingress.serviceSendClient(serviceD).qux(1, options);
    response.json({ message: "detached-chain started" });
  });

  app.post("/fan-out-workflow", async (request, response) => {
    const options = clients.rpc.opts({ idempotencyKey: idempotencyKey(request) });
    response.json({ message: await ingress.serviceClient(serviceG).zim(1, options) });
  });

  app.listen(port, "127.0.0.1");
} else {
  await restate.serve({ services: [services[name as keyof typeof services]], port });
}
