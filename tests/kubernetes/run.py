#!/usr/bin/env python3
"""Deploys the system on the cluster of the current kubectl context, breaks it in every way that a
cluster can, verifies each answer, and removes it again. It prints a line for each check; the exit code
is 1 if one failed.

It needs kubectl, Python 3, the rights of an administrator, and images that the nodes have or can pull.
It creates the namespaces async-rpc and async-rpc-test. Settings, as environment variables:

    IMAGE_PREFIX=async-rpc      images are called IMAGE_PREFIX/service-b:IMAGE_TAG
    IMAGE_TAG=0.1.0
    RESONATE_IMAGE=             other images of the official server and of Jaeger
    JAEGER_IMAGE=
    BUSYBOX_IMAGE=busybox:1.37  for pods that kill processes and try connections
    OVERLAY=sqlite              what of docker/kubernetes is deployed: sqlite or postgres
    LOAD_FOR=90s                for how long flows start: longer than a rolling update takes
    WORK=20s                    for how long flows work that are disturbed
    POLICIES_HOLD=              1: the network is known to enforce network policies, so it is a failure if
                                it does not
    CHECKS=                     only these, by the names of the functions below: "flows sigkill"
    KEEP=                       1: leaves everything on the cluster, and takes what is there
"""

import json
import subprocess
import sys
import time

from cluster import (
    DEPLOYMENTS, MANIFESTS, NAMESPACE, TOOLS, Failed, Request, Skipped, apply, container,
    expect, flow, get, image, kill, kubectl, post, roll_out, setting, start_killers, unique, until,
)

# How long a flow works: longer than it takes to break something, with kubectl and on a busy machine.
WORK = setting("WORK", "20s")


def manifests():
    """the API server accepts every overlay and component (dry run)"""
    for overlay, *components in [
        (".",),
        ("sqlite",),
        ("postgres",),
        ("sqlite", "auth"),
        ("postgres", "auth", "crash-button"),
    ]:
        apply(*components, overlay=overlay, options=["--dry-run=server"])
    for file in ["load.yaml", "autoscaling.yaml"]:
        kubectl("create", "--dry-run=server", f"--filename={MANIFESTS / file}")


def ready():
    """everything is deployed and becomes ready"""
    apply()
    roll_out()
    return f"{len(get('pods')['items'])} pods"


def flows():
    """the three flows are answered right"""
    for route in ["await-chain", "fan-out-workflow"]:
        answer = post(f"/{route}?id={unique(route)}")
        expect(answer["message"] == 3, answer)
    answer = post(f"/detached-chain?id={unique('detached-chain')}")
    expect(answer["message"] == "detached-chain started", answer)

    def has_printed():
        logs = kubectl("logs", "--selector=app=service-f", "--tail=-1")
        return "3" in logs.splitlines()

    until("service-f prints 3", has_printed)
    return "3, 3, and the detached one printed 3"


def no_button():
    """there is no crash button by default"""
    done = post("/instances/service-b/any/crash", check=False)
    expect("not find" in done.stderr or "no such route" in done.stderr, f"{done}")


def processes():
    """The names of the pods of the gateway and of all services."""
    return {it["metadata"]["name"] for it in get("pods", "--selector=role=process,pod-template-hash")["items"]}


def rolling_update():
    """every process is replaced under load, and no flow is lost"""
    text = kubectl("create", "--dry-run=client", "-o=json", f"--filename={MANIFESTS / 'load.yaml'}")
    job = json.loads(text)
    load = job["spec"]["template"]["spec"]["containers"][0]
    load["image"] = image("load")
    load["args"][-1] = setting("LOAD_FOR", "90s")
    name = kubectl("create", "--filename=-", "--output=name", stdin=json.dumps(job)).strip()
    until("the load generator runs", lambda: get(name)["status"].get("ready"))
    before, started = processes(), time.monotonic()
    # A changed setting is a new revision of every process.
    apply("crash-button")
    roll_out()
    until("the old processes are gone", lambda: not before & processes())
    seconds = time.monotonic() - started
    expect(get(name)["status"].get("active"), "the load ended before the update did")
    until("the load generator ends", lambda: not get(name)["status"].get("active"))
    summary = json.loads(kubectl("logs", name, "--tail=1"))
    expect(summary["right"] == summary["flows"] > 0, summary)
    return (
        f"{len(before)} pods in {seconds:.0f} s; {summary['flows']} flows, {summary['right']} right, "
        f"{summary['wrong']} wrong, {summary['lost']} lost; {summary['retried']} requests sent again; "
        f"slowest {summary['latency_ms']['max'] / 1000:.1f} s"
    )


def broken(how):
    """Breaks the pod that holds `bar` of a flow; another process must finish the flow."""
    request = Request("await-chain", work=WORK)
    pod = request.holder()["instance"]
    before = container(pod)
    how(pod, request)
    started = time.monotonic()
    try:
        other = until("another process holds it", lambda: (it := request.holder()["instance"]) != pod and it)
    except Failed:
        # A killed container starts again, under the same name, before its lease has run out: it may be the
        # process that takes over.
        now = container(pod)
        if not now or now["restartCount"] == before["restartCount"]:
            raise
        other = f"{pod} itself, started again, held it to the end"
    seconds = time.monotonic() - started
    message = request.result()
    expect(message == 3, f"the answer is {message}")
    text = f"{pod}, after {seconds:.1f} s {other}; answer 3 after {request.seconds:.1f} s"
    return text, pod, before


def comes_back(pod, before):
    """Waits until a killed container runs again, in the same pod, and tells its exit code."""
    count = before["restartCount"] + 1
    until("the container starts again", lambda: container(pod)["restartCount"] == count)
    code = container(pod)["lastState"]["terminated"]["exitCode"]
    expect(code == 137, f"exit code {code}")
    roll_out()


def sigkill():
    """the container that holds the work is killed with SIGKILL"""
    text, pod, before = broken(lambda pod, _: kill(pod))
    comes_back(pod, before)
    return text


def deleted():
    """the pod that holds the work is deleted, which is a drain"""
    text, *_ = broken(lambda pod, _: kubectl("delete", "pod", pod, "--wait=false"))
    roll_out()
    return text


def button():
    """the crash button: the command that answers show kills the process that holds the work"""

    def crash(pod, request):
        holder = request.holder()
        expect(holder["crash"] == f"/instances/service-b/{pod}/crash", holder)
        done = subprocess.run(holder["kill"], shell=True, capture_output=True, text=True, check=False)
        expect(f"{pod} has crashed" in done.stdout, f"{holder['kill']}: {done}")

    apply("crash-button")
    roll_out()
    text, pod, before = broken(crash)
    comes_back(pod, before)
    return text


def scale():
    """service-b is scaled to four processes, and the new ones work"""
    kubectl("scale", "deployment/service-b", "--replicas=4")
    roll_out("deployment/service-b")
    requests = [Request("await-chain", work=WORK) for _ in range(12)]
    holders = {it.holder()["instance"] for it in requests}
    expect(all(it.result() == 3 for it in requests), "a wrong answer")
    # Each call goes to a process that is picked at random.
    expect(len(holders) > 2, f"12 flows ran on {len(holders)} processes")
    kubectl("scale", "deployment/service-b", "--replicas=2")
    roll_out("deployment/service-b")
    return f"12 flows ran on {len(holders)} processes"


def drain():
    """a node is drained: the disruption budgets keep a process of everything"""
    nodes = get("nodes", namespace=None)["items"]
    others = [it for it in nodes if not it["spec"].get("unschedulable")]
    request = Request("await-chain", work=WORK)
    node = get("pod", request.holder()["instance"])["spec"]["nodeName"]
    command = ["drain", node, "--pod-selector=role=process", "--timeout=30s"]
    try:
        done = kubectl(*command, check=False, namespace=None)
        left = [get("deployment", it)["status"].get("readyReplicas", 0) for it in DEPLOYMENTS]
        expect(all(left), f"ready processes: {left}")
        expect(request.result() == 3, "a wrong answer")
        expect(post(f"/await-chain?id={unique('drain')}")["message"] == 3, "a wrong answer")
    finally:
        kubectl("uncordon", node, namespace=None)
    roll_out()
    if len(others) > 1:
        expect(done.returncode == 0, done.stderr)
        return f"{node} has no process left; answer 3 after {request.seconds:.1f} s"
    # Where should they go? One of each is evicted, the other stays.
    expect("violate the pod's disruption budget" in done.stderr, done.stderr)
    return f"the only node: {sum(left)} processes stay, the budgets refuse the rest; answers are 3"


def server():
    """the server's pod is deleted, then killed: its store keeps the flows, and they continue"""
    old, slowest = post(f"/await-chain?id={unique('old')}")["id"], []
    for how in [lambda: kubectl("delete", "pod", "resonate-0"), lambda: kill("resonate-0")]:
        requests = [
            Request("await-chain", work=WORK),
            Request("fan-out-workflow", work=WORK),
            Request("await-chain", sleep=WORK),
        ]
        for request, function in zip(requests, ["bar", "zim"]):
            request.holder(function)
        before = container("resonate-0")["containerID"]
        how()
        expect(all(it.is_alive() for it in requests), "too late: a flow has ended")

        def is_new():
            now = container("resonate-0")
            return now and now["ready"] and now["containerID"] != before

        until("a new server is ready", is_new)
        answers = [it.result() for it in requests]
        expect(answers == [3, 3, 3], answers)
        expect(flow(old)["state"] == "resolved", "the flows of before are gone")
        slowest.append(f"{max(it.seconds for it in requests):.1f} s")
    roll_out()
    return f"3 flows each time, all answered 3, after {' and '.join(slowest)} at most"


# Who may connect to what, and what not.
CONNECTIONS = {
    "role=process": (["resonate 8001", "jaeger 4318"], ["gateway 5000", "jaeger 16686"]),
    "app=load": (["gateway 5000"], ["resonate 8001", "jaeger 4318"]),
}


def networks():
    """network policies hold"""
    through, refused = [], 0
    for label, (allowed, forbidden) in CONNECTIONS.items():
        name = unique("connects")
        busybox = {"name": name, "image": setting("BUSYBOX_IMAGE", "busybox:1.37")}
        busybox["command"] = ["sleep", "600"]
        busybox["securityContext"] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        user = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
        key, value = label.split("=")
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {key: value}}}
        pod["spec"] = {"securityContext": user, "containers": [busybox]}
        kubectl("create", "--filename=-", stdin=json.dumps(pod))
        kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=180s")

        def connects(to):
            service, port = to.split()
            address = get("service", service)["spec"]["clusterIP"]
            # Not every busybox knows -z.
            script = f"nc -z -w 3 {address} {port} || nc -w 3 {address} {port} </dev/null"
            command = ["exec", name, "--", "sh", "-c", script]
            return kubectl(*command, check=False).returncode == 0

        for to in allowed:
            # A policy may take a moment to know a new pod.
            until(f"{label} reaches {to}", lambda: connects(to))
        through += [f"{label} to {to}" for to in forbidden if connects(to)]
        refused += len(forbidden)
        kubectl("delete", "pod", name, "--wait=false", "--grace-period=1")
    if len(through) == refused and not setting("POLICIES_HOLD"):
        raise Skipped("the network of this cluster enforces none; what they allow works")
    expect(not through, f"forbidden, but it connects: {through}")
    return f"{refused} forbidden connections are refused, allowed ones work"


CHECKS = [
    manifests, ready, flows, no_button, rolling_update, sigkill, deleted, button, scale, drain, server,
    networks,
]


def main():
    keep = setting("KEEP")
    for name in (NAMESPACE, TOOLS):
        exists = kubectl("get", "namespace", name, check=False, namespace=None).returncode == 0
        if exists and not keep:
            print(f"The namespace {name} exists; this test would delete it.", file=sys.stderr)
            return 2
    wanted = setting("CHECKS").split()
    unknown = set(wanted) - {it.__name__ for it in CHECKS}
    if unknown:
        names = ", ".join(it.__name__ for it in CHECKS)
        print(f"no such check: {', '.join(sorted(unknown))}; there are {names}", file=sys.stderr)
        return 2
    # All others need what `ready` deploys.
    checks = [it for it in CHECKS if not wanted or it.__name__ in wanted or it is ready]
    outcomes = {"ok": 0, "FAIL": 0, "skip": 0}
    try:
        # A dry run needs it too.
        kubectl("apply", f"--filename={MANIFESTS / 'base/namespace.yaml'}", namespace=None)
        start_killers(setting("BUSYBOX_IMAGE", "busybox:1.37"))
        for check in checks:
            started = time.monotonic()
            try:
                outcome, text = "ok", check()
            except Skipped as reason:
                outcome, text = "skip", reason
            except (Failed, KeyError, TypeError, ValueError) as error:
                outcome, text = "FAIL", f"{type(error).__name__}: {error}"
            outcomes[outcome] += 1
            seconds = time.monotonic() - started
            print(f"{outcome:4} {seconds:5.1f} s  {check.__doc__}{f': {text}' if text else ''}", flush=True)
            if outcome == "FAIL" and check is ready:
                break
    finally:
        if not keep:
            kubectl("delete", "namespace", NAMESPACE, TOOLS, check=False, namespace=None)
    passed, failed, skipped = outcomes.values()
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
