// A worker of service-c (`worker`) and a client of service-a (`client`), on the TypeScript SDK.
import { Resonate } from "@resonatehq/sdk";

const url = process.env.RESONATE_URL ?? "http://127.0.0.1:8001";

// The SDK does not pass the headers to functions, but the promise has them.
async function traceparent(id) {
  const head = { corrId: "interop", version: "2026-04-01" };
  const body = JSON.stringify({ kind: "promise.get", head, data: { id } });
  const answer = await fetch(url, { method: "POST", headers: { "content-type": "application/json" }, body });
  return (await answer.json()).data.promise.param.headers?.traceparent;
}

if (process.argv[2] === "worker") {
  const resonate = new Resonate({ url, group: "service-c", pid: "service-c-typescript" });
  resonate.register("baz", async (context) => {
    console.log(`baz of ${context.id} runs in TypeScript, traceparent ${await traceparent(context.id)}`);
    return 1;
  });
  console.log("waiting for calls of baz; Ctrl-C ends");
} else {
  const resonate = new Resonate({ url, group: "interop" });
  const id = `typescript-${Date.now()}`;
  const answer = await resonate.rpc(id, "foo", null, resonate.options({ target: "poll://any@service-a" }));
  console.log(`foo answered ${answer}, flow ${id}`);
  process.exit(answer === 3 ? 0 : 1);
}
