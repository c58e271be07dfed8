# Two images, one entry point, samdec-export; docs/docker.md says how to use them.
#
#   docker build --target cpu --tag samdec-export:cpu .    exports, validates, builds TensorRT-RTX engines ahead of time
#   docker build --target gpu --tag samdec-export:gpu .    ONNX Runtime on CUDA, TensorRT: builds for the GPU it runs on
#
# To pin the base beyond its tag: --build-arg PYTHON_IMAGE=python@sha256:... of the image that you tested.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /source
COPY pyproject.toml README.md ./
COPY samdec_export samdec_export
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM ${PYTHON_IMAGE} AS environment
ENV PATH=/opt/samdec/bin:${PATH}
RUN python -m venv /opt/samdec
COPY constraints.txt /constraints.txt
COPY --from=wheel /wheels /wheels

# PyTorch without CUDA: 0.2 GB of wheels instead of several.
FROM environment AS environment-cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=cpu,rtx,plot,triton
RUN python -m pip install --no-cache-dir --constraint /constraints.txt --index-url "${TORCH_INDEX}" torch
RUN python -m pip install --no-cache-dir --constraint /constraints.txt "$(echo /wheels/*.whl)[${EXTRAS}]"

# TensorRT's libraries are wheels of NVIDIA's own index; the driver comes from the host.
FROM environment AS environment-gpu
ARG TENSORRT_INDEX=https://pypi.nvidia.com
ARG EXTRAS=gpu,plot,triton
RUN python -m pip install --no-cache-dir --constraint /constraints.txt --extra-index-url "${TENSORRT_INDEX}" "$(echo /wheels/*.whl)[${EXTRAS}]"

FROM ${PYTHON_IMAGE} AS runtime
LABEL org.opencontainers.image.title="samdec-export" \
      org.opencontainers.image.description="Export the Segment Anything mask decoder and prove that nothing changed"
ENV PATH=/opt/samdec/bin:${PATH} \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib
RUN install --directory --owner=65532 --group=65532 /work
WORKDIR /work
USER 65532:65532
ENTRYPOINT ["samdec-export"]
CMD ["--help"]

FROM runtime AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=environment-gpu /opt/samdec /opt/samdec

# The last target is what a build without --target makes.
FROM runtime AS cpu
COPY --from=environment-cpu /opt/samdec /opt/samdec
