// The npm `fhir-kit-client` as an app: it discovers the endpoints and speaks FHIR; the OAuth requests between are plain ones, as its manual shows.
import { createHash, randomBytes } from "node:crypto";
import http from "node:http";
import { Client } from "fhir-kit-client";

const [baseUrl, port, clientId, clientSecret] = process.argv.slice(2);
const client = new Client({ baseUrl });
const redirectUri = `http://127.0.0.1:${port}/back`;
const verifier = randomBytes(48).toString("base64url");
const state = randomBytes(24).toString("base64url");
const { authorizeUrl, tokenUrl } = await client.smartAuthMetadata();

async function token(form) {
  const secret = clientSecret ? { client_secret: clientSecret } : {};
  const body = new URLSearchParams({ client_id: clientId, ...secret, ...form });
  const reply = await fetch(tokenUrl, { method: "POST", body });
  if (!reply.ok) throw new Error(await reply.text());
  const answer = await reply.json();
  client.bearerToken = answer.access_token;
  return answer;
}

async function back(url) {
  if (url.searchParams.get("state") !== state) throw new Error("another state");
  const answer = await token({
    grant_type: "authorization_code",
    code: url.searchParams.get("code"),
    redirect_uri: redirectUri,
    code_verifier: verifier,
  });
  const found = await client.search({ resourceType: "Observation", searchParams: { patient: answer.patient } });
  const again = await token({ grant_type: "refresh_token", refresh_token: answer.refresh_token });
  const patient = await client.read({ resourceType: "Patient", id: answer.patient });
  return {
    patient: answer.patient,
    family: patient.name[0].family,
    observations: (found.entry || []).map((one) => one.resource.id),
    refreshed: again.access_token !== answer.access_token,
  };
}

http
  .createServer(async (req, res) => {
    const url = new URL(req.url, `http://127.0.0.1:${port}`);
    try {
      if (url.pathname === "/launch") {
        const query = new URLSearchParams({
          response_type: "code",
          client_id: clientId,
          redirect_uri: redirectUri,
          scope: "launch/patient patient/*.rs openid fhirUser offline_access",
          state,
          aud: baseUrl,
          code_challenge: createHash("sha256").update(verifier).digest("base64url"),
          code_challenge_method: "S256",
        });
        res.writeHead(302, { location: `${authorizeUrl}?${query}` }).end();
        return;
      }
      res.end(JSON.stringify(await back(url)));
    } catch (error) {
      res.statusCode = 500;
      res.end(String(error && error.stack));
    }
  })
  .listen(Number(port), "127.0.0.1", () => console.log("listening"));
