"""HL7 v2 in and out as values: framing, ER7, data types, ADT events, FHIR Patient and Encounter, acknowledgements."""
