# Everything on one machine, in one container: `manymetrics serve`.
#
#   docker build -f docker/local.Dockerfile -t manymetrics .
#   docker run -p 127.0.0.1:8000:8000 -v manymetrics:/data manymetrics
#
# To renew: `docker buildx imagetools inspect python:3.13-slim-trixie` shows the digest of the day.
ARG BASE=docker.io/library/python:3.13-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY docker/build.lock docker/local.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip install --quiet --require-hashes --target tools -r build.lock \
    && python3 -m venv --without-pip /opt/manymetrics \
    && python3 -m pip --python /opt/manymetrics/bin/python3 install --quiet --require-hashes --no-deps \
        --only-binary :all: -r local.lock
COPY pyproject.toml README.md LICENSE src/
COPY contract/manymetrics src/contract/manymetrics
COPY api/manymetrics_api src/api/manymetrics_api
COPY processor/manymetrics_processor src/processor/manymetrics_processor
COPY insights/manymetrics_insights src/insights/manymetrics_insights
COPY cli/manymetrics_cli src/cli/manymetrics_cli
COPY sdk-js/dist src/sdk-js/dist
COPY sdk-js/released src/sdk-js/released
COPY sample src/sample
RUN PYTHONPATH=/build/tools python3 -m pip wheel --quiet --no-cache-dir --no-deps --no-build-isolation \
        --wheel-dir dist ./src \
    && python3 -m pip --python /opt/manymetrics/bin/python3 install --quiet --no-cache-dir --no-deps dist/*.whl \
    && mkdir /data

FROM ${BASE}
COPY --from=build /opt/manymetrics /opt/manymetrics
# A number, for there is nobody else in the image; the volume is theirs.
COPY --from=build --chown=10001:10001 /data /data
USER 10001:10001
WORKDIR /data
VOLUME /data
ENV PATH=/opt/manymetrics/bin:/usr/local/bin:/usr/bin:/bin \
    MANYMETRICS_DATA_DIR=/data \
    MANYMETRICS_HOST=0.0.0.0 \
    MANYMETRICS_PORT=8000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python3", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['MANYMETRICS_PORT'] + '/healthz')"]
CMD ["manymetrics", "serve"]
ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ManyMetrics" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION}
