# One static program in an image of its own, for linux/amd64 and linux/arm64:
#   docker build -t REGISTRY/weir:0.1.0 .
#   docker buildx build --platform linux/amd64,linux/arm64 -t REGISTRY/weir:0.1.0 --push .
# Everything is compiled on the machine that builds, for the other one too. The eBPF object is the same for both.
FROM --platform=$BUILDPLATFORM rust:1.95-bookworm AS build
WORKDIR /weir
COPY . .
# It finds or installs the compiler and the linker of the kernel half.
RUN cargo xtask build-ebpf
ARG TARGETARCH
RUN <<EOF
set -eu
case $TARGETARCH in
    amd64) machine=x86_64 ;;
    arm64) machine=aarch64 ;;
    *) echo "no image for $TARGETARCH" >&2; exit 1 ;;
esac
target=$machine-unknown-linux-gnu
if [ "$(uname -m)" != $machine ]; then
    apt-get update
    apt-get install --yes --no-install-recommends gcc-$(echo $machine | tr _ -)-linux-gnu libc6-dev-$TARGETARCH-cross
    gcc=$machine-linux-gnu-gcc
    export CC_$(echo $target | tr - _)=$gcc CARGO_TARGET_$(echo $target | tr a-z- A-Z_)_LINKER=$gcc
fi
rustup target add $target
RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --package weir --target $target
cp target/$target/release/weir /weir.static
EOF

FROM scratch
COPY --from=build /weir.static /weir
ENTRYPOINT ["/weir"]
