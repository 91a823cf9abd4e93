# The service with its weights: docker build -t tosa-vqa . && docker run --rm -p 127.0.0.1:8000:8000 tosa-vqa
# Targets: cpu (the default), cuda, ray, load. docs/containers.md says what each is for and what was tested.
# To pin the base image by digest as well: docker buildx imagetools inspect NAME:TAG, then NAME:TAG@sha256:...
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm
# Where torch for CPUs comes from, in words for uv pip install. docs/containers.md has those for a mirror and for a folder.
ARG TORCH_CPU="--torch-backend cpu --requirement /locks/torch-cpu.txt"

# Empty. A folder of wheels takes its place: --build-context torch=FOLDER
FROM scratch AS torch

# uv, and what builds our wheel. Only mounted below, so that no image has them.
FROM ${PYTHON_IMAGE} AS tools
COPY locks/tools.txt /locks/
RUN python -m venv /opt/tools \
    && /opt/tools/bin/pip install --no-cache-dir --require-hashes --requirement /locks/tools.txt

FROM tools AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY tosa tosa
COPY vlm vlm
COPY depth depth
COPY service service
COPY tosa_vqa_client tosa_vqa_client
RUN /opt/tools/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

# torch, with what only CUDA needs, apart from everything else: a layer of its own, shared by images.
FROM tools AS locks
COPY locks/runtime.txt locks/ray.txt locks/load.txt /locks/
RUN cuda='/^(torch|torchvision|triton|cuda-[a-z-]+|nvidia-[a-z0-9-]+)==/,/[^\\]$/' \
    && sed -E -n "${cuda}p" /locks/runtime.txt >/locks/torch-cuda.txt \
    && sed -E -i "${cuda}d" /locks/runtime.txt /locks/ray.txt /locks/load.txt

# No compiler, no installer, nothing setuid, nobody but an unprivileged user; only /tmp, /results and /language are
# ever written.
FROM ${PYTHON_IMAGE} AS runtime
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin service \
    && install --directory --owner 10001 --group 10001 /results /language \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    && find / -xdev -depth \( -path '*-packages/pip*' -o -path '*-packages/setuptools*' -o -path '*-packages/wheel*' \
      -o -path '*/bin/pip*' -o -path '*/python3*/ensurepip*' -o -path '/usr/*include/*' \) -delete \
    && python -m venv --without-pip /opt/tosa-vqa
# Threads of torch that wait for each other sleep: others share the cores, and spinning for one that does not run
# took seven times as long.
ENV VIRTUAL_ENV=/opt/tosa-vqa UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1 OMP_WAIT_POLICY=PASSIVE \
    PATH=/opt/tosa-vqa/bin:$PATH \
    HOME=/tmp HF_HOME=/tmp/huggingface HF_HUB_OFFLINE=1 \
    MALLOC_ARENA_MAX=2 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /tmp
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
  CMD ["python", "-I", "-c", "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', 8000, timeout=2); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
CMD ["tosa-vqa", "serve", "--host", "0.0.0.0", "--port", "8000"]

# Podman 4 mounts only a stage from which something is copied too: tools.txt.
# pip and not uv, which notes the time of the build beside the package: two builds shall give the same bytes.
FROM runtime AS ours
COPY --from=tools /locks/tools.txt /locks/
COPY --from=wheel /wheels /wheels
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    /opt/tools/bin/pip --python /opt/tosa-vqa install --no-cache-dir --no-deps --no-index --find-links /wheels tosa-vqa \
    && rm -rf /opt/tosa-vqa/.lock /opt/tosa-vqa/include

# torch for CPUs is not among the hashed: it has an index of its own, which uv knows by the name "cpu".
FROM runtime AS torch-cpu
ARG TORCH_CPU
COPY locks/torch-cpu.txt /locks/
# What is deleted last are times of wheels that come from a folder, by which two builds would differ.
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools --mount=type=bind,from=torch,target=/torch \
    /opt/tools/bin/uv pip install --no-deps ${TORCH_CPU} \
    && rm -rf /opt/tosa-vqa/.lock /opt/tosa-vqa/include \
    && find /opt/tosa-vqa -name uv_cache.json -delete \
    && sed -i /uv_cache.json/d /opt/tosa-vqa/lib/python3*/site-packages/torch*.dist-info/RECORD

# In every image what changes least comes first: after a change of our own code, only the last layer is new.
FROM runtime AS cuda
COPY --from=locks /locks/torch-cuda.txt /locks/
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    /opt/tools/bin/uv pip install --no-deps --require-hashes --requirement /locks/torch-cuda.txt \
    && rm -rf /opt/tosa-vqa/.lock /opt/tosa-vqa/include
COPY --from=locks /locks/runtime.txt /locks/
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    /opt/tools/bin/uv pip install --no-deps --require-hashes --requirement /locks/runtime.txt \
    && rm -rf /opt/tosa-vqa/.lock /opt/tosa-vqa/include
COPY --from=ours /opt/tosa-vqa /opt/tosa-vqa
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility TOSA_VQA_DEVICE=cuda
USER 10001:10001

FROM torch-cpu AS ray
COPY --from=locks /locks/ray.txt /locks/
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    /opt/tools/bin/uv pip install --no-deps --require-hashes --requirement /locks/ray.txt \
    && rm -rf /opt/tosa-vqa/.lock /opt/tosa-vqa/include
COPY --from=ours /opt/tosa-vqa /opt/tosa-vqa
ENV RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
USER 10001:10001
CMD ["tosa-vqa", "serve", "--engine", "ray", "--replicas", "2", "--host", "0.0.0.0", "--port", "8000"]

# Without torch: it asks questions and answers none.
FROM runtime AS load
COPY --from=locks /locks/load.txt /locks/
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    /opt/tools/bin/uv pip install --no-deps --require-hashes --requirement /locks/load.txt \
    && rm -rf /opt/tosa-vqa/.lock /opt/tosa-vqa/include
COPY --from=ours /opt/tosa-vqa /opt/tosa-vqa
COPY evals /app/evals
COPY bench /app/bench
WORKDIR /app
USER 10001:10001
HEALTHCHECK NONE
CMD ["python", "-m", "bench.load", "--url", "http://proxy:8080", "--out", "/results/report.json", "--images", "/results"]

FROM torch-cpu AS cpu
COPY --from=locks /locks/runtime.txt /locks/
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    /opt/tools/bin/uv pip install --no-deps --require-hashes --requirement /locks/runtime.txt \
    && rm -rf /opt/tosa-vqa/.lock /opt/tosa-vqa/include
COPY --from=ours /opt/tosa-vqa /opt/tosa-vqa
USER 10001:10001
