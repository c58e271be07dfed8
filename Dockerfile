# Two images, one entry point, samdec-export; docs/docker.md says how to use them.
#
#   docker build --target cpu --tag samdec-export:cpu .    exports, validates, builds TensorRT-RTX engines ahead of time
#   docker build --target gpu --tag samdec-export:gpu .    ONNX Runtime on CUDA, TensorRT: builds for the GPU it runs on
#
# To pin the base beyond its tag: --build-arg PYTHON_IMAGE=python@sha256:... of the image that you tested.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

ARG PACKAGE_INDEX=https://pypi.org/simple

# What builds packages is pinned too: every install is --no-build-isolation, over what this stage has.
FROM ${PYTHON_IMAGE} AS environment
ARG PACKAGE_INDEX
ENV PATH=/opt/samdec/bin:${PATH}
RUN python -m venv /opt/samdec
COPY constraints.txt /constraints.txt
RUN python -m pip install --no-cache-dir --constraint /constraints.txt --index-url "${PACKAGE_INDEX}" --only-binary :all: hatchling setuptools

FROM environment AS wheel
WORKDIR /source
COPY pyproject.toml README.md ./
COPY samdec_export samdec_export
RUN python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

# PyTorch without CUDA: 0.2 GB of wheels instead of several. Its index gives PyTorch alone.
FROM environment AS environment-cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG PACKAGE_INDEX
ARG EXTRAS=cpu,rtx,plot,triton
COPY --from=wheel /wheels /wheels
RUN python -m pip install --no-cache-dir --constraint /constraints.txt --index-url "${TORCH_INDEX}" --only-binary :all: --no-deps torch
RUN python -m pip install --no-cache-dir --constraint /constraints.txt --index-url "${PACKAGE_INDEX}" --only-binary :all: --no-binary tensorrt-rtx-cu13 --no-build-isolation "$(echo /wheels/*.whl)[${EXTRAS}]"

# TensorRT's libraries are wheels of NVIDIA's own index, which gives these two alone; the driver comes from the host.
FROM environment AS environment-gpu
ARG TENSORRT=11.4.0.106
ARG TENSORRT_INDEX=https://pypi.nvidia.com
ARG PACKAGE_INDEX
ARG EXTRAS=gpu,plot,triton
ENV NVIDIA_TENSORRT_DISABLE_INTERNAL_PIP=1
COPY --from=wheel /wheels /wheels
RUN python -m pip install --no-cache-dir --index-url "${TENSORRT_INDEX}" --only-binary :all: --no-deps "tensorrt-cu13-bindings==${TENSORRT}" "tensorrt-cu13-libs==${TENSORRT}"
RUN python -m pip install --no-cache-dir --constraint /constraints.txt --index-url "${PACKAGE_INDEX}" --no-build-isolation "tensorrt==${TENSORRT}" "$(echo /wheels/*.whl)[${EXTRAS}]"

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
