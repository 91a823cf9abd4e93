# The service with its weights: docker build -t tosa-vqa . && docker run --rm -p 127.0.0.1:8000:8000 tosa-vqa
# Targets: cpu (the default), cuda, ray, load. docs/containers.md says what each is for and what was tested.
# To pin the base image by digest as well: docker buildx imagetools inspect NAME:TAG, then NAME:TAG@sha256:...
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
COPY locks/tools.txt /locks/
RUN pip install --no-cache-dir --require-hashes --requirement /locks/tools.txt && python -m venv /opt/tosa-vqa
ENV UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 VIRTUAL_ENV=/opt/tosa-vqa

FROM build AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY tosa tosa
COPY vlm vlm
COPY depth depth
COPY service service
RUN python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

# torch for CPUs is not among the hashed: it has an index of its own, which uv knows by the name "cpu".
# What only CUDA needs is cut from the locks.
FROM build AS torch-cpu
COPY locks/torch-cpu.txt locks/runtime.txt locks/ray.txt locks/load.txt /locks/
RUN uv pip install --no-deps --torch-backend cpu --requirement /locks/torch-cpu.txt
RUN sed -E -i '/^(torch|torchvision|triton|cuda-[a-z-]+|nvidia-[a-z0-9-]+)==/,/[^\\]$/d' /locks/*.txt

FROM torch-cpu AS build-cpu
RUN uv pip install --no-deps --require-hashes --requirement /locks/runtime.txt
COPY --from=wheel /wheels /wheels
RUN uv pip install --no-deps /wheels/*.whl

FROM torch-cpu AS build-ray
RUN uv pip install --no-deps --require-hashes --requirement /locks/ray.txt
COPY --from=wheel /wheels /wheels
RUN uv pip install --no-deps /wheels/*.whl

FROM torch-cpu AS build-load
RUN uv pip install --no-deps --require-hashes --requirement /locks/load.txt
COPY --from=wheel /wheels /wheels
RUN uv pip install --no-deps /wheels/*.whl

FROM build AS build-cuda
COPY locks/runtime.txt /locks/
RUN uv pip install --no-deps --require-hashes --requirement /locks/runtime.txt
COPY --from=wheel /wheels /wheels
RUN uv pip install --no-deps /wheels/*.whl

# No compiler, nothing setuid, nobody but an unprivileged user; only /tmp, /results and /language are ever written.
FROM ${PYTHON_IMAGE} AS runtime
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin service \
    && install --directory --owner 10001 --group 10001 /results /language \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
ENV PATH=/opt/tosa-vqa/bin:$PATH \
    HOME=/tmp HF_HOME=/tmp/huggingface HF_HUB_OFFLINE=1 \
    MALLOC_ARENA_MAX=2 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
  CMD ["python", "-I", "-c", "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', 8000, timeout=2); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
CMD ["tosa-vqa", "serve", "--host", "0.0.0.0", "--port", "8000"]

FROM runtime AS cuda
COPY --from=build-cuda /opt/tosa-vqa /opt/tosa-vqa
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility TOSA_VQA_DEVICE=cuda

FROM runtime AS ray
COPY --from=build-ray /opt/tosa-vqa /opt/tosa-vqa
ENV RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
CMD ["tosa-vqa", "serve", "--engine", "ray", "--replicas", "2", "--host", "0.0.0.0", "--port", "8000"]

FROM runtime AS load
COPY --from=build-load /opt/tosa-vqa /opt/tosa-vqa
COPY evals /app/evals
COPY bench /app/bench
WORKDIR /app
HEALTHCHECK NONE
CMD ["python", "-m", "bench.load", "--url", "http://service:8000", "--out", "/results/report.json", "--images", "/results"]

FROM runtime AS cpu
COPY --from=build-cpu /opt/tosa-vqa /opt/tosa-vqa
