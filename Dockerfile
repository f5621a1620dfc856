# Every image of this project: one stage builds all executables, SERVICE chooses the one that an
# image runs. `docker compose build` makes them all; a single one by hand:
#   docker build --build-arg SERVICE=service-b -t async-rpc/service-b .
# BuildKit's caches keep what cargo has downloaded and compiled: after a change of one service
# only that service is compiled. (No `# syntax=` line: it would be one more image to pull.)

# Both bases are of Debian 12, for the executables use the C library of the second.
ARG RUST_IMAGE=rust:1.95-slim-bookworm
ARG BASE_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${RUST_IMAGE} AS build
# Link-time optimization does the same work for each of eleven executables, which is a
# good part of a build's time; a flow then takes about a seventh less CPU. LTO=off is for those in a hurry.
ARG LTO=thin
ENV CARGO_PROFILE_RELEASE_LTO=${LTO}
WORKDIR /src
COPY . .
# `target` is a cache, which does not become part of the stage: what is needed is copied out.
# Cargo trusts times, and another checkout on this machine may have filled the cache from sources
# that are newer, but not these: so a file is new if its content is not that of the last build.
RUN --mount=type=cache,sharing=locked,target=/usr/local/cargo/registry \
    --mount=type=cache,sharing=locked,target=/src/target \
    find Cargo.toml Cargo.lock crates otel services -type f -exec sha256sum {} + | sort >/tmp/sources && \
    touch target/sources && \
    comm -23 /tmp/sources target/sources | cut -c67- | xargs -r -d '\n' touch && \
    rm target/sources && \
    cargo build --locked --release --workspace --exclude launcher --bins && \
    cp /tmp/sources target/sources && \
    mkdir /out && \
    cp target/release/gateway target/release/embedded-server target/release/service-? /out/

FROM ${BASE_IMAGE}
ARG SERVICE=gateway
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="async-rpc/${SERVICE}" \
      org.opencontainers.image.description="${SERVICE} of the Async RPC example: durable calls on a Resonate Server" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/${SERVICE} /app
# The base's `nonroot`, as a number, so that orchestrators can see that it is not root.
USER 65532:65532
STOPSIGNAL SIGTERM
# There is no shell and no curl: the executable asks itself.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["/app", "healthcheck"]
ENTRYPOINT ["/app"]
