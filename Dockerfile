# A node, the shell, and all commands: docker-compose.yml uses it for everything that is raftdb.
#   docker build -t raftdb .
#   docker run --rm raftdb raftdb --help
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY requirements.txt requirements-chaos.txt ./
RUN python3 -m venv /opt/raftdb \
    && /opt/raftdb/bin/pip install --no-cache-dir --disable-pip-version-check \
        -r requirements.txt -r requirements-chaos.txt
COPY setup.cfg pyproject.toml README.md ./
COPY raftdb raftdb
RUN /opt/raftdb/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps . \
    && /opt/raftdb/bin/pip uninstall --quiet --yes pip setuptools \
    && /opt/raftdb/bin/python -m compileall -q /opt/raftdb/lib

FROM ${PYTHON_IMAGE}
RUN groupadd --system --gid 10001 raftdb \
    && useradd --system --uid 10001 --gid raftdb --home-dir /var/lib/raftdb --shell /usr/sbin/nologin raftdb \
    && install -d -o raftdb -g raftdb -m 0700 /var/lib/raftdb
COPY --from=build /opt/raftdb /opt/raftdb
COPY docker/found.sh docker/enlist.sh docker/healthy.sh /usr/local/bin/
ENV PATH=/opt/raftdb/bin:$PATH
USER raftdb
WORKDIR /var/lib/raftdb
VOLUME /var/lib/raftdb
# A node that answers, and knows a leader that a majority follows.
HEALTHCHECK --interval=10s --timeout=8s --start-period=30s --retries=3 CMD ["healthy.sh"]
STOPSIGNAL SIGTERM
CMD ["raftdb", "start", "--config", "/var/lib/raftdb/raftdb.toml"]
