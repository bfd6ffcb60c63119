# syntax=docker/dockerfile:1
# pillowd in a container: nothing but Python, pillowd and what it needs; no root, nothing to write to but
# the volume /var/lib/pillowd.
#
#   make image
#   docker run --read-only --tmpfs /tmp --tmpfs /run/pillowd:uid=10001,gid=10001,mode=0750 \
#     -v ./pillowd.yaml:/etc/pillowd/pillowd.yaml:ro -v pillowd-state:/var/lib/pillowd pillowd
#
# Instead of the mounted file, the variable PILLOWD_CONFIG_YAML can hold the whole configuration.

# To take a newer image, replace the digest in both places: `docker buildx imagetools inspect python:3.13-slim`.
FROM python:3.13-slim@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b AS build
WORKDIR /src
RUN python -m venv /opt/pillowd && python -m venv /opt/build
# What it needs changes seldom, so it is a layer of its own.
# requirements-opensearch.lock has OpenSearch's client, too; requirements-kafka.lock has Kafka's.
ARG REQUIREMENTS=requirements.lock
COPY requirements.lock requirements-opensearch.lock requirements-kafka.lock requirements-build.lock ./
RUN /opt/pillowd/bin/pip install --no-cache-dir --require-hashes -r "$REQUIREMENTS" \
 && /opt/build/bin/pip install --no-cache-dir --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md LICENSE pillowd.py ./
COPY checkpoints ./checkpoints
COPY pillows ./pillows
COPY daemon ./daemon
# There is no git in here, so the builder says what the image is: `make image`.
ARG VERSION=0+unknown
ARG COMMIT=
RUN printf 'Metadata-Version: 2.4\nName: pillowd\nVersion: %s\n' "$VERSION" > PKG-INFO \
 && sed -i "s/^BUILT_FROM = \"\"$/BUILT_FROM = \"$COMMIT\"/" daemon/commit.py \
 && /opt/build/bin/pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /wheel . \
 && /opt/pillowd/bin/pip install --no-cache-dir --no-deps /wheel/*.whl

FROM python:3.13-slim@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b
RUN groupadd --system --gid 10001 pillowd \
 && useradd --system --uid 10001 --gid pillowd --home-dir /var/lib/pillowd --shell /usr/sbin/nologin pillowd \
 && install -d -o pillowd -g pillowd -m 0700 /var/lib/pillowd \
 && install -d -o pillowd -g pillowd -m 0750 /run/pillowd \
 && install -d -m 0755 /etc/pillowd
COPY --from=build /opt/pillowd /opt/pillowd
ENV PATH=/opt/pillowd/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    STATE_DIRECTORY=/var/lib/pillowd \
    RUNTIME_DIRECTORY=/run/pillowd
USER 10001:10001
VOLUME ["/var/lib/pillowd"]
# Whether the process lives. A failed pillow is its operator's business, not a reason to restart the others:
# for that, and for load balancers, there is /readyz.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 \
    CMD ["python", "-c", "from http.client import HTTPConnection; c = HTTPConnection('127.0.0.1', 9147, timeout=5); c.request('GET', '/livez'); exit(c.getresponse().status != 200)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["pillowd"]
CMD ["run", "--all"]
