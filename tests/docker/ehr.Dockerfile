# Stands in for the HAPI FHIR image where no registry is in reach: our own FHIR API on the same port.
ARG DERMBRIDGE
FROM ${DERMBRIDGE}
COPY open_ehr.py /open_ehr.py
HEALTHCHECK NONE
ENTRYPOINT []
CMD ["python3", "/open_ehr.py"]
