#!/usr/bin/env bash
# Builds the images that docker/offline.yaml needs, on a machine that reaches Debian's, Rust's and Go's
# package registries but no image registry:
#   async-rpc/rust:local        Debian, a C compiler and this machine's Rust toolchain
#   async-rpc/distroless:local  the C library and certificates, nothing else: no shell
#   async-rpc/jaeger:local      Jaeger, built from docker/jaeger with Go, or copied from $JAEGER_BIN
# Needs root on Debian or Ubuntu (debootstrap), cargo, and Go unless JAEGER_BIN is set. Existing images
# are kept; `--force` rebuilds them. To build only some of them, name them:
#   docker/offline-images.sh rust distroless
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

force=
wanted=()
for argument in "$@"; do
    case $argument in
        --force) force=yes ;;
        rust | distroless | jaeger) wanted+=("$argument") ;;
        *) echo "usage: docker/offline-images.sh [--force] [rust] [distroless] [jaeger]" >&2; exit 64 ;;
    esac
done
[ ${#wanted[@]} -gt 0 ] || wanted=(rust distroless jaeger)

missing() {
    [[ " ${wanted[*]} " == *" $1 "* ]] || return 1
    [ -n "$force" ] || ! docker image inspect "async-rpc/$1:local" >/dev/null 2>&1
}

work=$(mktemp -d "${TMPDIR:-/var/tmp}/async-rpc-images.XXXXXX")
trap 'rm -rf "$work"' EXIT

# Executables built in `rust` use the libraries of `distroless`: both come from this Debian release.
suite=bookworm
# The machine's certificates: they may include a company's own.
certificates=/etc/ssl/certs/ca-certificates.crt

# Creates a Debian file system, once.
debian() {
    [ ! -e "$work/debian" ] || return 0
    command -v debootstrap >/dev/null || {
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends debootstrap
    }
    debootstrap --variant=minbase --include=gcc,libc6-dev,ca-certificates "$suite" "$work/debian" \
        >"$work/debootstrap.log" || { tail -20 "$work/debootstrap.log" >&2; return 1; }
    rm -rf "$work"/debian/var/cache/apt/* "$work"/debian/var/lib/apt/lists/* \
        "$work"/debian/usr/share/{doc,man,locale}
    cp "$certificates" "$work/debian$certificates"
}

rust() {
    debian
    local sysroot host
    sysroot=$(rustc --print sysroot)
    host=$(rustc -vV | sed -n 's/^host: //p')
    local to=$work/debian/usr/local/rust
    mkdir -p "$to/bin" "$to/lib/rustlib"
    cp "$sysroot"/bin/{cargo,rustc} "$to/bin/"
    cp -a "$sysroot"/lib/*.so* "$to/lib/"
    cp -a "$sysroot/lib/rustlib/$host" "$to/lib/rustlib/"
    tar -C "$work/debian" -c . | docker import \
        --change 'ENV CARGO_HOME=/usr/local/cargo PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        - async-rpc/rust:local
    rm -rf "$to"
}

distroless() {
    debian
    local from=$work/debian to=$work/distroless libraries loader
    libraries=$(basename "$(echo "$from"/lib/*-linux-gnu*/)")
    mkdir -p "$to"/{etc/ssl/certs,home/nonroot,lib/"$libraries",root,tmp,usr/lib,var}
    for library in libc.so.6 libm.so.6 libgcc_s.so.1 libpthread.so.0 libdl.so.2 librt.so.1; do
        cp -L "$from/lib/$libraries/$library" "$to/lib/$libraries/"
    done
    # The dynamic loader, at the path that executables expect: /lib64/… or /lib/….
    for loader in "$from"/lib64/ld-*.so.* "$from"/lib/ld-*.so.*; do
        [ -e "$loader" ] || continue
        mkdir -p "$to$(dirname "${loader#"$from"}")"
        cp -L "$loader" "$to${loader#"$from"}"
    done
    cp -L "$from/etc/os-release" "$to/etc/os-release"
    cp "$certificates" "$to$certificates"
    echo 'hosts: files dns' >"$to/etc/nsswitch.conf"
    printf '%s\n' 'root:x:0:0:root:/root:/sbin/nologin' \
        'nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin' >"$to/etc/passwd"
    printf '%s\n' 'root:x:0:' 'nonroot:x:65532:' >"$to/etc/group"
    chown 65532:65532 "$to/home/nonroot"
    chmod 1777 "$to/tmp"
    tar -C "$to" -c . | docker import \
        --change 'USER 65532:65532' --change 'WORKDIR /home/nonroot' \
        --change "ENV SSL_CERT_FILE=$certificates" --change 'ENV PATH=/usr/bin:/bin' \
        - async-rpc/distroless:local
}

# With the same entry point, user and listen address as Jaeger's own image.
jaeger() {
    local to=$work/jaeger
    mkdir -p "$to/cmd/jaeger" "$to/etc/ssl/certs"
    if [ -n "${JAEGER_BIN:-}" ]; then
        cp "$JAEGER_BIN" "$to/cmd/jaeger/jaeger-linux"
    else
        CGO_ENABLED=0 go build -C docker/jaeger -trimpath -ldflags '-s -w' \
            -o "$to/cmd/jaeger/jaeger-linux" github.com/jaegertracing/jaeger/cmd/jaeger
    fi
    cp "$certificates" "$to$certificates"
    tar -C "$to" -c . | docker import \
        --change 'USER 10001' --change 'ENV JAEGER_LISTEN_HOST=0.0.0.0' \
        --change 'ENTRYPOINT ["/cmd/jaeger/jaeger-linux"]' \
        - async-rpc/jaeger:local
}

for image in "${wanted[@]}"; do
    if missing "$image"; then
        echo "building async-rpc/$image:local"
        "$image"
    fi
done
