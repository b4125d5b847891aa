# docker build -t cat-diffusion .
# docker run --init -p 7860:7860 -v cats:/data -e ADMIN_PASSWORD cat-diffusion
FROM python:3.12-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /app

# torch for the CPU alone: a tenth of the size of that with CUDA
RUN pip install "torch>=2.8" "torchvision>=0.23" --index-url https://download.pytorch.org/whl/cpu
COPY requirements.txt ./
RUN pip install -r requirements.txt

COPY . .
RUN useradd --uid 1000 --create-home cat \
    && mkdir /data \
    && chown cat /data
USER 1000

ENV CAT_HOST=0.0.0.0 CAT_PORT=7860 CAT_DATA_DIR=/data
VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", \
    "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"CAT_PORT\"]}/healthz')"]
CMD ["python", "app.py"]
