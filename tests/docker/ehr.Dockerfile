# Stands in for the HAPI FHIR image where no registry is in reach: our sandbox EHR on the same port.
ARG DERMBRIDGE
FROM ${DERMBRIDGE}
HEALTHCHECK NONE
ENTRYPOINT []
CMD ["dermbridge", "sandbox", "--host", "0.0.0.0", "--port", "8080"]
