# Commands of everyday work: `just` lists them. Each is what CI runs, or what the README shows.
# just is not required: the commands below can be typed by hand.

set shell := ["bash", "-euo", "pipefail", "-c"]

# List the recipes
default:
    @just --list

# Formatting, lints, documentation and dependencies, as CI checks them
check:
    .ci/run check

# All tests, with containers if ASYNC_RPC_DOCKER=1
test *arguments:
    cargo test --workspace {{ arguments }}

# Everything that CI runs
ci:
    .ci/run

# Start the system in containers
up *arguments:
    docker compose up {{ arguments }}

# Measure latency, throughput, CPU, memory and recovery: `just bench --quick`, `just bench growth`
bench *arguments:
    cargo bench -- {{ arguments }}

# Run random faults on real processes: --for 10m --server embedded|PATH|URL --clients 16 --seed 1
soak *arguments:
    cargo bench --bench soak -- {{ arguments }}

# Random histories under faults, in virtual time: `just sim --faults 300000`, `just sim --seed 7 --log`
sim *arguments:
    cargo test -p simulation --test simulation -- {{ arguments }}

# Validate the manifests of docker/kubernetes, without a cluster
kubernetes-validate:
    docker/kubernetes/validate.sh

# Deploy on the cluster of the current kubectl context, break it, and remove it: CHECKS="flows sigkill"
kubernetes-test:
    tests/kubernetes/run.py
