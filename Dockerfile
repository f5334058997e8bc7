# A static binary on an image that has CA certificates and a non-root user, and nothing else.
FROM rust:1.95-alpine AS build
RUN apk add --no-cache musl-dev
WORKDIR /src
# The dependencies change seldom: they are a layer of their own.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && echo 'fn main() {}' >src/main.rs && touch src/lib.rs \
    && cargo build --release --locked
COPY src src
RUN touch src/main.rs src/lib.rs && cargo build --release --locked

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /src/target/release/job-executor-service /bin/job-executor-service
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/bin/job-executor-service"]
CMD ["serve"]
