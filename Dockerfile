# DermBridge in a container: unprivileged, happy on a read-only root, photos in /var/lib/dermbridge,
# and the keys that open them in /var/lib/dermbridge/keys, which may be a volume of its own.
# Any Debian-like image with Python 3.11 or newer and venv serves as BASE; both stages use the same one.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# The system's certificates, so that a BASE which trusts a hospital's own proxy is enough to build behind it.
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_QUIET=1
WORKDIR /src
COPY requirements requirements
RUN python3 -m venv /opt/dermbridge \
 && /opt/dermbridge/bin/python -m pip install --no-compile --require-hashes -r requirements/run.txt
# The wheel is built with the locked hatchling and Node.js, in an environment that stays behind.
RUN python3 -m venv /opt/build \
 && /opt/build/bin/python -m pip install --require-hashes -r requirements/test.txt -r requirements/node.txt
COPY . .
RUN /opt/build/bin/hatchling build -t wheel -d /dist \
 && /opt/dermbridge/bin/python -m pip install --no-compile --no-deps --no-index /dist/*.whl \
 && /opt/dermbridge/bin/python -m compileall -q -j 0 /opt/dermbridge/lib \
 && /opt/dermbridge/bin/python -m pip uninstall -y pip

FROM ${BASE}
LABEL org.opencontainers.image.title="DermBridge" org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --no-create-home --home-dir /var/lib/dermbridge --shell /usr/sbin/nologin dermbridge \
 && install -d -o dermbridge -g dermbridge -m 0700 /var/lib/dermbridge /var/lib/dermbridge/keys
COPY --from=build /opt/dermbridge /opt/dermbridge
ENV PATH=/opt/dermbridge/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    DERMBRIDGE_DATA_DIR=/var/lib/dermbridge DERMBRIDGE_HTTP_HOST=0.0.0.0 DERMBRIDGE_MLLP_HOST=0.0.0.0
USER dermbridge
WORKDIR /var/lib/dermbridge
VOLUME /var/lib/dermbridge
EXPOSE 8000 2575
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=6 \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["dermbridge"]
CMD ["serve", "--host", "0.0.0.0"]
