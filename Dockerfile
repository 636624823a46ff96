# docker build -t pgweir .
# docker run -p 6432:6432 -p 9432:9432 -v ./pgweir:/etc/pgweir:ro pgweir
# The directory, not the file: a file that is replaced outside would stay the old one inside.
# In a container listen.addr and admin.addr must name 0.0.0.0, or only the container itself reaches them.

FROM rust:1.95.0-slim-bookworm AS build
# The image has this toolchain; rust-toolchain.toml would fetch rustfmt and clippy besides.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin pgweir && cp target/release/pgweir /usr/local/bin/

# glibc, libgcc, CA certificates, a user who is not root; no shell.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=busybox:1.37.0-musl /bin/busybox /bin/wget
COPY --from=build /usr/local/bin/pgweir /usr/local/bin/pgweir
EXPOSE 6432 9432
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD ["/bin/wget", "-q", "-O", "/dev/null", "http://127.0.0.1:9432/healthz"]
ENTRYPOINT ["/usr/local/bin/pgweir"]
CMD ["--config", "/etc/pgweir/proxy.toml"]
