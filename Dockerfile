# All images of this project. One stage builds every executable; SERVICE selects the one that an image
# runs. `docker compose build` builds them all. To build a single one:
#   docker build --build-arg SERVICE=service-b -t async-rpc/service-b .
# BuildKit caches what cargo has downloaded and compiled: after a change to one service, only that
# service is compiled. (There is no `# syntax=` line: it would be one more image to pull.)

# Both base images are Debian 12, because executables built in the first need the libraries of the second.
ARG RUST_IMAGE=rust:1.95-slim-bookworm
ARG BASE_IMAGE=gcr.io/distroless/cc-debian12:nonroot

# The compiler runs on the architecture of this machine, also for images of the other one.
FROM --platform=${BUILDPLATFORM} ${RUST_IMAGE} AS build
ARG TARGETARCH
RUN case "${TARGETARCH}" in amd64) cpu=x86_64 ;; arm64) cpu=aarch64 ;; \
    *) echo "images can be built for amd64 and arm64, not for ${TARGETARCH}" >&2; exit 1 ;; esac && \
    echo "${cpu}-unknown-linux-gnu" >/target && \
    if [ "$(uname -m)" != "${cpu}" ]; then \
        apt-get update -qq && \
        apt-get install -qq -y --no-install-recommends \
            "gcc-$(echo "${cpu}" | tr _ -)-linux-gnu" "libc6-dev-${TARGETARCH}-cross" && \
        rustup target add "$(cat /target)"; \
    fi
ENV CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=x86_64-linux-gnu-gcc
# Link-time optimization, LTO=thin, is done once for each executable, so the build takes longer. A flow then uses
# less CPU.
ARG LTO=off
ENV CARGO_PROFILE_IMAGE_LTO=${LTO}
# Packed relocations: each executable is half a megabyte smaller. They need glibc 2.36, that of Debian 12.
ENV RUSTFLAGS="-C link-arg=-Wl,-z,pack-relative-relocs"
WORKDIR /src
COPY . .
# The load generator and the embedded server are compiled only for their own images.
ARG PACKAGES="--exclude embedded-server --exclude load"
# `target` is a cache mount and not part of the stage, so the executables are copied out.
# Cargo compares modification times, but another checkout may have filled the cache from newer, different
# sources. So every file whose content differs from the last build is touched.
RUN --mount=type=cache,sharing=locked,target=/usr/local/cargo/registry \
    --mount=type=cache,sharing=locked,id=target-${TARGETARCH},target=/src/target \
    find Cargo.toml Cargo.lock crates otel services -type f -exec sha256sum {} + | sort >/tmp/sources && \
    touch target/sources && \
    comm -23 /tmp/sources target/sources | cut -c67- | xargs -r -d '\n' touch && \
    rm target/sources && \
    out="target/$(cat /target)/image" && mkdir -p "${out}" && \
    find "${out}" -maxdepth 1 -type f -executable -delete && \
    cargo build --locked --profile image --target "$(cat /target)" --workspace --exclude launcher ${PACKAGES} --bins && \
    cp /tmp/sources target/sources && \
    mkdir /out && find "${out}" -maxdepth 1 -type f -executable -exec cp -t /out {} +

FROM ${BASE_IMAGE}
ARG SERVICE=gateway
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="async-rpc/${SERVICE}" \
      org.opencontainers.image.description="${SERVICE} of the Async RPC example: durable calls on a Resonate Server" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/${SERVICE} /app
# The base image's `nonroot`, as a number, so that orchestrators can tell that it is not root.
USER 65532:65532
STOPSIGNAL SIGTERM
# The image has no shell and no curl: the executable checks itself.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["/app", "healthcheck"]
ENTRYPOINT ["/app"]
