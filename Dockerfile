# One static program in an image of its own, for linux/amd64 and linux/arm64:
#   docker build -t REGISTRY/weir:0.1.0 .
#   docker buildx build --platform linux/amd64,linux/arm64 -t REGISTRY/weir:0.1.0 --push .
# `cargo xtask image` makes the same image without docker. Everything is compiled on the machine that builds, for the other one too;
# the eBPF object is the same for both.
FROM --platform=$BUILDPLATFORM rust:1.95-bookworm AS build
WORKDIR /weir
COPY . .
# It finds or installs the compilers and linkers: of the kernel half, and of the other machine.
RUN cargo xtask build-ebpf
ARG TARGETARCH
RUN cargo xtask image --architecture $TARGETARCH && mv target/image/release/$TARGETARCH/weir /weir.static

FROM scratch
COPY --from=build /weir.static /weir
ENTRYPOINT ["/weir"]
