# syntax=docker/dockerfile:1
ARG PYTHON=3.13-slim-bookworm

FROM python:${PYTHON} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Dependencies first: they change less often than the code.
COPY requirements/ requirements/
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --no-deps -r requirements/build.txt -r requirements/sbom.txt \
    && python -m venv /opt/agentos-exporter \
    && /opt/agentos-exporter/bin/pip install --require-hashes --no-deps -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY exporter/ exporter/
# pip serves no purpose in the final image. The bill of materials comes last, to name what is there; it holds no date and
# no random number, so that the same sources and locks make the same file.
RUN /opt/build/bin/python -m hatchling build -t wheel \
    && /opt/agentos-exporter/bin/pip install --no-deps --no-index dist/*.whl \
    && /opt/agentos-exporter/bin/pip uninstall --yes pip \
    && /opt/build/bin/cyclonedx-py environment --output-reproducible --output-file /opt/agentos-exporter/sbom.cdx.json \
        /opt/agentos-exporter \
    && mkdir /var/lib/agentos-exporter

FROM python:${PYTHON}
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="agentos-exporter" \
      org.opencontainers.image.description="Prometheus exporter for Agno's AgentOS" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV AGENTOS_EXPORTER_REVISION=${REVISION} \
    PATH=/opt/agentos-exporter/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
COPY --from=builder /opt/agentos-exporter /opt/agentos-exporter
# The state: a daemon without it would have to forget what it counted.
COPY --from=builder --chown=65532:65532 /var/lib/agentos-exporter /var/lib/agentos-exporter
VOLUME /var/lib/agentos-exporter
WORKDIR /var/lib/agentos-exporter
USER 65532:65532
EXPOSE 9777
# Named, so that the engine takes no other signal for the end. To reload do not use `docker kill` anyway: docs/deployment.md says why.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9777/-/healthy', timeout=4)"]
ENTRYPOINT ["agentos-exporter"]
CMD ["run", "--web.listen-address", ":9777"]
