# The compile daemon. Not built yet on a machine with a Docker engine: checked with hadolint and by reading.
#
#   docker build -t compiler-daemon .
#   docker run --name compiler-daemon --stop-timeout 75 -v compile:/var/lib/compiler-daemon compiler-daemon
#
# Build arguments:
#   PYTHON               minor version of Python. Trainers that use this daemon's workers need the same.
#   TORCH                the torch to install, as a requirement. The default is the version that the tests run with.
#   PIP_INDEX_URL,       where pip finds packages. On Linux the default index has torch with CUDA; for a CPU image name
#   PIP_EXTRA_INDEX_URL  an index that carries the CPU wheels, and TORCH="torch==2.13.0+cpu".
#   EXTRAS               what the daemon can share artifacts through: s3, redis; s3 alone is enough for a directory.
#   USER_ID              the daemon's user. Token, secret and socket are for this user only, so trainers need the same.
#
# A trainer in a second container shares the volume, the user and the interpreter's path; easiest is the same image:
#   docker run --rm -v compile:/var/lib/compiler-daemon -e TORCH_COMPILE_CLIENT=1 \
#       --entrypoint python compiler-daemon train.py
# From another image it can still look up and publish, but the daemon does not compile for it.

ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
ARG TORCH="torch==2.13.0"
ARG PIP_INDEX_URL=""
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
# torch in a layer of its own: it is large, and changes less often than the daemon.
RUN python -m venv /opt/venv \
    && /opt/venv/bin/python -m pip install --no-cache-dir "${TORCH}"
ARG EXTRAS="s3,redis"
WORKDIR /src
COPY . .
RUN /opt/venv/bin/python -m pip install --no-cache-dir ".[${EXTRAS}]"

FROM python:${PYTHON}-slim-bookworm
ARG USER_ID=1000
# g++ and openssl: workers build CPU kernels, for which torch calls both. binutils: `strip` takes the debug sections, and
# their paths, out of them. tini: it reaps what killed workers leave behind.
# hadolint ignore=DL3008  # versions follow the base image; pinned ones disappear from Debian's mirrors
RUN apt-get update \
    && apt-get install -y --no-install-recommends binutils g++ openssl tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid "${USER_ID}" --create-home --shell /usr/sbin/nologin compiler \
    && install -d -m 0700 -o compiler -g compiler /var/lib/compiler-daemon
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    COMPILER_DAEMON_DIR=/var/lib/compiler-daemon
USER ${USER_ID}
WORKDIR /home/compiler
VOLUME ["/var/lib/compiler-daemon"]
# Asks the daemon itself, over its socket and with its token; exit code 1 where it does not answer within 10 s.
HEALTHCHECK --interval=30s --timeout=15s --start-period=10s --retries=3 \
    CMD ["compiler-daemon", "status", "--json"]
# A stop drains for up to 60 s: give it more than Docker's usual 10 (`--stop-timeout`, `stop_grace_period`).
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--", "compiler-daemon"]
CMD ["serve"]
