# QSMxT as a BIDS App: docker run --rm -v BIDS:/data:ro -v OUT:/out IMAGE /data /out participant -w /tmp/work
# Any user, read-only root and no network will do; only /out, the work folder and /tmp are written to.
# The template is fetched at build time, unless a folder "templateflow" beside this file holds it;
# --build-arg TEMPLATE= leaves it out.
ARG BASE_IMAGE=python:3.12-slim-bookworm

FROM ${BASE_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/qsmxt
ENV PATH=/opt/qsmxt/bin:$PATH
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
# libraries first, in a layer that a change of the code leaves as it is
RUN mkdir qsmxt && echo '__version__ = "0"' > qsmxt/__init__.py \
    && pip install --no-cache-dir -c constraints.txt '.[fast,validator]' \
    && pip uninstall -y qsmxt && rm -rf qsmxt build
COPY qsmxt qsmxt
# tests and sample data of libraries are never used: a sixth of the image
RUN pip install --no-cache-dir --no-deps . \
    && pip uninstall -y pip \
    && find /opt/qsmxt -type d \( -name tests -o -name sample_data \) -prune -exec rm -rf {} +

FROM build AS kernels
# Kernels are compiled for any processor of the architecture by running the program on a small digital head.
ENV NUMBA_CACHE_DIR=/opt/numba \
    NUMBA_CPU_NAME=generic \
    OMP_NUM_THREADS=1 \
    NO_ET=1 \
    NIPYPE_NO_ET=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    TEMPLATEFLOW_HOME=/tmp/templateflow
# not in /src: kernels are filed under the folder that the package is imported from
WORKDIR /tmp
RUN for preset in default fast body; do \
        qsmxt-demo "/tmp/demo-$preset" --subjects 1 --voxel-size 4 --preset "$preset" --swi --r2star --t2star \
            --skip-bids-validation || exit 1; \
    done \
    && qsmxt-demo /tmp/demo-single --subjects 1 --voxel-size 4 --echo-times 0.02 --skip-bids-validation \
    && rm -rf /tmp/demo-* \
    && chmod -R a+rX /opt/numba

FROM build AS templates
ARG TEMPLATE=MNI152NLin2009cAsym
ENV TEMPLATEFLOW_HOME=/opt/templateflow
WORKDIR /tmp
COPY README.md templateflo[w] /opt/templateflow/
RUN rm /opt/templateflow/README.md \
    && python3 -c "import templateflow" \
    && if [ -n "${TEMPLATE}" ]; then \
        python3 -c "import sys; from qsmxt.external.templates import find_template as f; f(sys.argv[1], [])" "${TEMPLATE}"; \
    fi \
    && chmod -R a+rX /opt/templateflow

FROM ${BASE_IMAGE}
ARG VERSION=10.0.0.dev0
LABEL org.opencontainers.image.title="QSMxT" \
      org.opencontainers.image.description="BIDS App for quantitative susceptibility mapping" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/QSMxT/QSMxT"
RUN useradd --create-home --uid 1000 qsmxt && chmod -R a+rX /home/qsmxt
COPY --from=build /opt/qsmxt /opt/qsmxt
COPY --from=kernels /opt/numba /opt/numba
COPY --from=templates /opt/templateflow /opt/templateflow
ENV PATH=/opt/qsmxt/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/home/qsmxt \
    TEMPLATEFLOW_HOME=/opt/templateflow \
    TEMPLATEFLOW_AUTOUPDATE=off \
    MPLCONFIGDIR=/tmp/matplotlib \
    MPLBACKEND=Agg \
    NUMBA_CACHE_DIR=/opt/numba \
    NUMBA_CPU_NAME=generic \
    OMP_NUM_THREADS=1 \
    ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1 \
    NO_ET=1 \
    NIPYPE_NO_ET=1 \
    PYTHONNOUSERSITE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    LC_ALL=C.UTF-8
WORKDIR /tmp
USER 1000
ENTRYPOINT ["qsmxt"]
