// An EHR that is not ours: `oidc-provider` as its authorization server, and four records behind /fhir.
//
//   node ehr.mjs '{"port": 9001, "clients": [{"client_id": …, "redirect_uris": […], …}], "seconds": 60}'
//
// With "tls", a PEM file of certificate and key, it speaks https; NODE_EXTRA_CA_CERTS is whom it trusts.
// Whoever comes is signed in at once, as the user whom the cookie `user` names, and consents to what is asked.
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { Provider, errors, interactionPolicy } from 'oidc-provider';

const { port, clients, seconds = 3600, tls } = JSON.parse(process.argv[2]);
const issuer = `${tls ? 'https' : 'http'}://127.0.0.1:${port}`;
const fhir = `${issuer}/fhir`;

const USERS = {
  rivera: { fhirUser: `${fhir}/Practitioner/77`, name: 'Dr. Inés Rivera', groups: ['staff', 'derm'] },
  quinn: { name: 'Quinn Abara', groups: ['privacy'] },
  twin: { name: 'somebody else at the UserInfo endpoint', groups: ['derm'] },
  porter: { name: 'Sam Porter', groups: ['logistics'] },
};
const LAUNCHES = {
  chart: { patient: 'p-42', encounter: 'e-9', need_patient_banner: true },
  framed: { patient: 'p-42', need_patient_banner: false },
  standalone: { patient: 'p-43', need_patient_banner: true },
};
const mrn = (value) => [{ type: { coding: [{ system: 'http://terminology.hl7.org/CodeSystem/v2-0203', code: 'MR' }] },
                          system: 'urn:oid:2.999.42', value }];
const RECORDS = [
  { resourceType: 'Patient', id: 'p-42', identifier: mrn('4242'), birthDate: '1961-04-09', gender: 'female',
    name: [{ family: 'Nakashima', given: ['Hana'] }] },
  { resourceType: 'Patient', id: 'p-43', identifier: mrn('4343'), birthDate: '1975-12-01', gender: 'male',
    name: [{ family: 'Brandt', given: ['Ole'] }] },
  { resourceType: 'Practitioner', id: '77', name: [{ text: 'Dr. Inés Rivera' }] },
  { resourceType: 'Encounter', id: 'e-9', status: 'in-progress', subject: { reference: 'Patient/p-42' },
    identifier: [{ system: 'urn:oid:2.999.43', value: 'V-9' }],
    class: { system: 'http://terminology.hl7.org/CodeSystem/v3-ActCode', code: 'AMB' } },
];

const launches = new Map(); // grant -> what was open when it was given
const policy = interactionPolicy.base();
policy.remove('consent');
const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });

const provider = new Provider(issuer, {
  clients: clients.map((one) => ({ grant_types: ['authorization_code', 'refresh_token'], ...one })),
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), kid: 'ehr-1', use: 'sig', alg: 'RS256' }] },
  enabledJWA: { clientAuthSigningAlgValues: ['RS384', 'ES384'] }, // SMART App Launch 2.2, asymmetric clients
  clientAuthMethods: ['none', 'client_secret_basic', 'private_key_jwt'],
  cookies: { keys: ['of this test'] },
  scopes: ['openid', 'fhirUser', 'profile', 'online_access', 'launch', 'launch/patient',
    'patient/Patient.r', 'patient/Encounter.rs'],
  // fhirUser is in the id_token (SMART); the others are at the UserInfo endpoint alone (OpenID Connect Core 5.4).
  claims: { openid: ['sub', 'fhirUser'], profile: ['name', 'groups'] },
  fetch: (url, { dispatcher, ...options }) => fetch(url, options), // which keeps it from loopback, where our keys are
  pkce: { required: () => true },
  ttl: { AccessToken: seconds, Grant: 3600, IdToken: 300, Interaction: 300, RefreshToken: 3600, Session: 3600 },
  issueRefreshToken: (_ctx, _client, source) => source.scopes.has('online_access'),
  rotateRefreshToken: true,
  features: { devInteractions: { enabled: false }, revocation: { enabled: true } },
  extraParams: {
    launch: (ctx, value) => {
      if (value && !(value in LAUNCHES)) throw new errors.InvalidRequest('unknown launch');
    },
    aud: (ctx, value) => {
      if (/\blaunch\b/.test(ctx.oidc.params.scope) && value !== fhir) throw new errors.InvalidRequest('aud is not us');
    },
  },
  findAccount: (_ctx, id) => USERS[id] && { accountId: id, claims: () => USERS[id] },
  interactions: { policy, url: (_ctx, { uid }) => `/interaction/${uid}` },
  async loadExistingGrant({ oidc }) {
    const grant = new oidc.provider.Grant({ clientId: oidc.client.clientId, accountId: oidc.session.accountId });
    grant.addOIDCScope(oidc.params.scope);
    await grant.save();
    const standalone = /\blaunch\/patient\b/.test(oidc.params.scope) ? 'standalone' : '';
    launches.set(grant.jti, LAUNCHES[oidc.params.launch ?? standalone]);
    return grant;
  },
});

const NEEDED = { Practitioner: 'fhirUser', Patient: 'patient/Patient.r', Encounter: 'patient/Encounter.rs' };

async function record(ctx) {
  const token = await provider.AccessToken.find(ctx.get('authorization').replace(/^Bearer /, ''));
  const [, , type, id] = ctx.path.split('/');
  if (token?.scopes.has(NEEDED[type])) ctx.body = RECORDS.find((one) => one.resourceType === type && one.id === id);
  else ctx.status = token ? 403 : 401;
}

provider.use(async (ctx, next) => {
  if (ctx.path === '/fhir/.well-known/smart-configuration') {
    ctx.body = {
      issuer,
      jwks_uri: `${issuer}/jwks`,
      authorization_endpoint: `${issuer}/auth`,
      token_endpoint: `${issuer}/token`,
      revocation_endpoint: `${issuer}/token/revocation`,
      code_challenge_methods_supported: ['S256'],
      capabilities: ['launch-ehr', 'launch-standalone', 'sso-openid-connect', 'context-banner'],
    };
  } else if (ctx.path.startsWith('/fhir/')) {
    await record(ctx);
  } else if (ctx.path.startsWith('/interaction/')) {
    await provider.interactionFinished(ctx.req, ctx.res, { login: { accountId: ctx.cookies.get('user') ?? 'rivera' } });
  } else {
    await next();
    if (ctx.oidc?.route === 'token' && ctx.status === 200) {
      Object.assign(ctx.body, launches.get(ctx.oidc.entities.Grant.jti));
    } else if (ctx.oidc?.route === 'userinfo' && ctx.body.sub === 'twin') {
      ctx.body.sub = 'rivera';
    }
  }
});
provider.on('grant.error', (_ctx, error) => console.error(error.message, error.error_detail));
const pem = tls && readFileSync(tls);
const server = tls ? createServer({ cert: pem, key: pem }, provider.callback()) : provider;
server.listen(port, '127.0.0.1', () => console.log('ready'));
