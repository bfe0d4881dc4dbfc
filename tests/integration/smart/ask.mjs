// What an app author would write with the SMART team's client: read, search page by page, create, and be refused.
// argv: FHIR base, access token, patient id, a Media id, a JPEG in base64. Prints one JSON line.
import FHIR from 'fhirclient';

const [base, token, patient, media, picture] = process.argv.slice(2);
const nothing = async () => undefined; // no launch, so nothing to remember between requests
const smart = FHIR({ headers: {}, url: '/' }, {}, { get: nothing, set: nothing, unset: nothing });
const client = smart.client({ serverUrl: base, tokenResponse: { access_token: token, token_type: 'Bearer' } });
const refusal = (promise) => promise.then(() => 0, (error) => error.statusCode ?? error.status ?? String(error));

const read = await client.request(`Media/${media}`);
const pages = await client.request(`Media?patient=${patient}&_count=1`, { pageLimit: 0, flat: true });
const included = await client.request(`Media?_id=${media}&_include=Media:patient`);
const photo = (whose) => ({
  resourceType: 'Media',
  status: 'completed',
  subject: { reference: `Patient/${whose}` },
  content: { contentType: 'image/jpeg', data: picture },
});
const created = await client.create(photo(patient));
const again = await client.request(`Media/${created.id}`);
const shown = await client.request({ url: again.content.url, headers: { Accept: 'image/jpeg' }, includeResponse: true });
const refusedType = await refusal(client.request('Consent'));
const refusedPatient = await refusal(client.request('Patient/p2'));
const elsewhere = await refusal(client.create(photo('p2')));

console.log(JSON.stringify({
  read: read.id,
  found: pages.map((one) => one.id).sort(),
  included: included.entry.map((one) => one.resource.resourceType).sort(),
  created: again.subject.reference,
  shown: shown.response.headers.get('content-type'),
  refusedType,
  refusedPatient,
  elsewhere,
}));
