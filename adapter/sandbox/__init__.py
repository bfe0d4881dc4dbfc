"""An EHR to try everything against: patients, visits, SMART launch, FHIR R4, an ADT feed, on its own data folder.

It reuses DermBridge's rows and FHIR server; what it shows is what really arrived over the network.
"""
