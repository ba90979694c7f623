# The service's image. `--build-arg REQUIREMENTS=requirements-local.txt` adds the emulator that
# docker-compose.yml's profile `localstack-less` runs; without it the image has none.
ARG BASE=python:3.13.11-slim-trixie

FROM ${BASE} AS build
ARG REQUIREMENTS=requirements.txt
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_NO_COMPILE=1 \
    PIP_ONLY_BINARY=:all: \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements.txt requirements-local.txt ./
# setuptools builds the service's own wheel, so it too is taken from the lock, hash and all.
RUN python -m venv --without-pip /opt/scoring \
    && sed -n '/^setuptools==/,/[^\\]$/p' requirements-local.txt > /tmp/build.txt \
    && python -m pip install --require-hashes --requirement /tmp/build.txt \
    && python -m pip --python /opt/scoring/bin/python install --require-hashes --requirement "${REQUIREMENTS}"
COPY pyproject.toml README.md ./
COPY service service
# Unchecked: the files never change, and nothing can be written beside them at run time.
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /tmp/wheel . \
    && python -m pip --python /opt/scoring/bin/python install --no-deps /tmp/wheel/*.whl \
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/scoring

FROM ${BASE}
ARG BASE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="engagement-scoring" \
      org.opencontainers.image.description="Engagement events on Kinesis become exact scores per user in DynamoDB" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}"
# Nothing is installed at run time.
RUN python -m pip uninstall --yes --quiet --root-user-action ignore pip
COPY --from=build /opt/scoring /opt/scoring
# The HTTP port listens to all of the container, else nothing could scrape it; who runs the container
# decides what of it is published.
ENV PATH="/opt/scoring/bin:${PATH}" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1 \
    PYTHONUNBUFFERED=1 \
    SCORING_HTTP_HOST=0.0.0.0
# Numeric, so that `runAsNonRoot` can be checked without reading the image's users.
USER 10001:10001
EXPOSE 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('SCORING_HTTP_PORT', '9464') + '/healthz', timeout=4)"]
ENTRYPOINT ["scoring"]
CMD ["run"]
