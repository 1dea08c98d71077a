# elsa-ext of this checkout, with PyTorch's default torch, or with that of another index:
#   docker build -t elsa-ext .
#   docker build -t elsa-ext --build-arg PIP_EXTRA_INDEX_URL=INDEX .
#   docker run --rm elsa-ext info
#   docker run --rm -v "$PWD:/work" elsa-ext train
FROM python:3.13-slim AS build
# hadolint ignore=DL3008  # any g++ of this Debian will do
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1
WORKDIR /source
COPY . .
RUN ELSA_CUDA=off python -m pip wheel --no-deps --wheel-dir /wheels .

FROM python:3.13-slim
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1
# hadolint ignore=DL3013  # the one wheel that was built above
RUN --mount=from=build,source=/wheels,target=/wheels \
    python -m pip install "$(echo /wheels/*.whl)[train]" && elsa-ext info
WORKDIR /work
ENTRYPOINT ["elsa-ext"]
CMD ["info"]
