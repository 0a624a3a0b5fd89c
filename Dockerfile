# One image for every program of Nightread. It computes on the CPU, and on a GPU where one is given to it:
# the wheels of torch carry CUDA.
#
#   docker build -t nightread:local .
#   docker build -t nightread:local --build-arg EXTRAS=cuda --build-arg BASE=IMAGE .
#
# The extra `cuda` adds mamba-ssm, which has to be compiled: IMAGE must then be a Debian or Ubuntu with Python 3.12,
# a C++ compiler and the nvcc of the CUDA version that torch was built for.
ARG BASE=python:3.12-slim-trixie
FROM ${BASE}
ARG EXTRAS=""

# The packages have general names (`models`, `db`), so they stay in a folder of their own and are installed
# editable; a wheel would drop them into site-packages.
WORKDIR /opt/nightread
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

# Triton compiles a small launcher on its first use on a GPU.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

# Exact versions first: this layer changes only when they do.
COPY requirements.txt ./
RUN pip install -r requirements.txt

COPY pyproject.toml README.md LICENSE ./
COPY orchestration ./orchestration
COPY workers ./workers
COPY training ./training
COPY models ./models
COPY db ./db
COPY migrations ./migrations
COPY releases ./releases
COPY deploy/entrypoint.py ./deploy/entrypoint.py
RUN if [ -n "${EXTRAS}" ]; then \
        pip install --no-build-isolation --constraint requirements.txt --editable ".[${EXTRAS}]"; \
    else \
        pip install --no-deps --editable .; \
    fi \
    && python -m compileall -q orchestration workers training models db migrations

# Built kernels and parts of releases are kept in the cache, which is a volume; everything else of the image
# may be mounted read-only. Volumes take over owner and mode of the folders made here.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/nightread/cache nightread \
    && install -d -o nightread -g nightread -m 0700 \
        /var/lib/nightread /var/lib/nightread/cache /var/lib/nightread/releases /var/lib/nightread/scratch
ENV HOME=/var/lib/nightread/cache NIGHTREAD_HOME=/var/lib/nightread PYTHONUNBUFFERED=1
USER 10001:10001

ENTRYPOINT ["python", "/opt/nightread/deploy/entrypoint.py"]
CMD ["nightread", "--help"]
