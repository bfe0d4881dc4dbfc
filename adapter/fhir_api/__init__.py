"""The FHIR R4 REST server (http://hl7.org/fhir/R4/http.html), for DermBridge and for the sandbox EHR alike."""

from adapter.fhir_api.exchange import Access, Answer, Request
from adapter.fhir_api.routes import fhir_routes
from adapter.fhir_api.server import Audit, FhirServer, Operation

__all__ = ["Access", "Answer", "Audit", "FhirServer", "Operation", "Request", "fhir_routes"]
