"""What the checks in run.py use: kubectl, requests to the gateway, pods, and what is deployed."""

import json
import os
import subprocess
import tempfile
import threading
import time
import uuid
from pathlib import Path

MANIFESTS = Path(__file__).resolve().parents[2] / "docker/kubernetes"
NAMESPACE = "async-rpc"
# Where the pods are that kill processes.
TOOLS = "async-rpc-test"
DEPLOYMENTS = ["gateway", *(f"service-{letter}" for letter in "abcdefghi")]
# Whoever waits longer has failed. It is generous, because the machine may be busy.
DEADLINE = 180


def setting(name, default=""):
    """An environment variable. An empty one counts as unset."""
    return os.environ.get(name) or default


class Failed(Exception):
    """A check has failed."""


class Skipped(Exception):
    """This cluster cannot show it."""


def kubectl(*arguments, stdin="", check=True, namespace=NAMESPACE):
    """What kubectl prints. Without `check`, the whole outcome, also if it is an error."""
    command = ["kubectl", *(["--namespace", namespace] if namespace else []), *arguments]
    done = subprocess.run(command, input=stdin, text=True, capture_output=True, check=False)
    if not check:
        return done
    if done.returncode != 0:
        raise Failed(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def get(*arguments, namespace=NAMESPACE):
    return json.loads(kubectl("get", *arguments, "--output=json", namespace=namespace))


def expect(condition, otherwise):
    if not condition:
        raise Failed(otherwise)


def until(what, condition):
    """The first value of `condition` that is true."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.2)
    raise Failed(f"not within {DEADLINE} s: {what}")


def unique(name):
    return f"{name}-{uuid.uuid4().hex[:8]}"


# ---- The gateway. It is reached through the API server, which finds a pod that is ready.

GATEWAY = f"/api/v1/namespaces/{NAMESPACE}/services/gateway:http/proxy"


def post(path, check=True):
    arguments = ["create", "--raw", GATEWAY + path, "--filename=-"]
    answer = kubectl(*arguments, check=check, namespace=None)
    return json.loads(answer) if check else answer


def flow(name):
    return json.loads(kubectl("get", "--raw", f"{GATEWAY}/flows/{name}", namespace=None))


class Request(threading.Thread):
    """A request in the background that waits for the answer of its flow."""

    def __init__(self, route, **options):
        super().__init__(daemon=True)
        self.flow = unique(route)
        query = "&".join(f"{name}={value}" for name, value in {"id": self.flow, **options}.items())
        self.path = f"/{route}?{query}"
        self.answer = self.error = self.seconds = None
        self.start()

    def run(self):
        started = time.monotonic()
        try:
            # A gateway that stops answers with 202, which has no message. The same request again
            # finds the flow.
            while "message" not in (self.answer or {}):
                self.answer = post(self.path)
        except (Failed, ValueError) as error:
            self.error = error
        self.seconds = time.monotonic() - started

    def result(self):
        self.join(DEADLINE)
        expect(self.seconds, f"no answer within {DEADLINE} s: {self.path}")
        expect(not self.error, self.error)
        return self.answer["message"]

    def holder(self, function="bar"):
        """The process that runs the function now, as `GET /flows/{id}` shows it."""

        def find():
            try:
                known = flow(self.flow)
            except Failed:
                return None
            expect(known["state"] == "pending", f"too late: {self.flow} has ended")
            calls = known["invocations"]
            held = (it for it in calls if it["function"] == function and "instance" in it)
            return next(held, None)

        return until(f"a process holds {function} of {self.flow}", find)


# ---- Pods.


def container(pod):
    """The state of the only container of a pod, or None if there is none at the moment."""
    found = kubectl("get", "pod", pod, "--ignore-not-found", "--output=json")
    statuses = json.loads(found or "{}").get("status", {}).get("containerStatuses")
    return statuses[0] if statuses else None


def kill(pod):
    """Kills the container of a pod with SIGKILL, from its node: kubectl has no such command, and the
    kernel protects the first process of a container from what runs inside."""
    node = get("pod", pod)["spec"]["nodeName"]
    killers = get("pods", "--selector=app=killer", namespace=TOOLS)["items"]
    killer = next(it["metadata"]["name"] for it in killers if it["spec"]["nodeName"] == node)
    name = container(pod)["containerID"].split("://")[1]
    script = f"for it in $(grep -l {name} /proc/[0-9]*/cgroup); do kill -9 $(echo $it | cut -d/ -f3); done"
    kubectl("exec", killer, "--", "sh", "-c", script, namespace=TOOLS)


def start_killers(image):
    """A pod on each node that sees all processes of the node."""
    main = {"name": "killer", "image": image, "command": ["sleep", "86400"]}
    main["securityContext"] = {"runAsUser": 0}
    spec = {"hostPID": True, "terminationGracePeriodSeconds": 0, "containers": [main]}
    labels = {"app": "killer"}
    template = {"metadata": {"labels": labels}, "spec": spec}
    killers = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "killer"}}
    killers["spec"] = {"selector": {"matchLabels": labels}, "template": template}
    kubectl("create", "namespace", TOOLS, check=False, namespace=None)
    kubectl("apply", "--filename=-", stdin=json.dumps(killers), namespace=TOOLS)
    wait = f"--timeout={DEADLINE}s"
    kubectl("rollout", "status", "daemonset/killer", wait, namespace=TOOLS)


# ---- What is deployed.


def image(name):
    """An image of ours."""
    return f"{setting('IMAGE_PREFIX', 'async-rpc')}/{name}:{setting('IMAGE_TAG', '0.1.0')}"


def apply(*components, overlay=setting("OVERLAY", "sqlite"), options=()):
    """Deploys an overlay of docker/kubernetes, with the images of this test."""
    images = {f"async-rpc/{name}": image(name) for name in DEPLOYMENTS}
    images["resonatehqio/resonate"] = setting("RESONATE_IMAGE")
    images["jaegertracing/jaeger"] = setting("JAEGER_IMAGE")
    changed = []
    for name, other in images.items():
        if other:
            new, _, tag = other.rpartition(":")
            changed.append({"name": name, "newName": new, "newTag": tag})
    with tempfile.TemporaryDirectory() as folder:

        def relative(name):
            return os.path.relpath(MANIFESTS / name, os.path.realpath(folder))

        kustomization = {
            "resources": [relative(overlay)],
            "components": [relative(it) for it in components],
            "images": changed,
        }
        Path(folder, "kustomization.yaml").write_text(json.dumps(kustomization), encoding="utf-8")
        kubectl("apply", "--kustomize", folder, *options, namespace=None)


def roll_out(*names):
    """Waits until everything that was changed is up and ready."""
    everything = [f"deployment/{it}" for it in [*DEPLOYMENTS, "jaeger"]] + ["statefulset/resonate"]
    for name in names or everything:
        kubectl("rollout", "status", name, f"--timeout={DEADLINE}s")
