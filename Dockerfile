# The service on a CPU, with the embedded model: docker build -t tosa-vqa . && docker run --rm -p 8000:8000 tosa-vqa
FROM python:3.12-slim AS build
RUN pip install --no-cache-dir uv && uv venv /opt/tosa-vqa
COPY pyproject.toml README.md LICENSE /src/
COPY tosa /src/tosa
COPY vlm /src/vlm
COPY depth /src/depth
COPY service /src/service
COPY evals /src/evals
RUN uv pip install --no-cache --python /opt/tosa-vqa/bin/python /src

FROM python:3.12-slim
COPY --from=build /opt/tosa-vqa /opt/tosa-vqa
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin service
USER 10001
ENV PATH=/opt/tosa-vqa/bin:$PATH HF_HUB_OFFLINE=1 HF_HOME=/tmp/huggingface PYTHONUNBUFFERED=1
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
CMD ["tosa-vqa", "serve", "--host", "0.0.0.0", "--port", "8000"]
