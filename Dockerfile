# elsa-ext of this checkout, with torch for the CPU:
#   docker build -t elsa-ext .
#   docker run --rm elsa-ext info
#   docker run --rm -v "$PWD:/work" elsa-ext train
FROM python:3.13-slim AS build
# hadolint ignore=DL3008  # any g++ of this Debian will do
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
WORKDIR /source
COPY . .
RUN ELSA_CUDA=off python -m pip wheel --no-deps --wheel-dir /wheels .

FROM python:3.13-slim
ENV PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
# hadolint ignore=DL3013  # the one wheel that was built above
RUN --mount=from=build,source=/wheels,target=/wheels \
    python -m pip install "$(echo /wheels/*.whl)[train]" && elsa-ext info
WORKDIR /work
ENTRYPOINT ["elsa-ext"]
CMD ["info"]
