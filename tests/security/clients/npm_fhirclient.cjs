// The npm `fhirclient` as a server-side app: /launch sends the browser away, /back reads, searches, refreshes and tells what it saw.
const http = require("http");
const smart = require("fhirclient");

const [iss, port, clientId, clientSecret] = process.argv.slice(2);
const session = {};
const storage = {
  get: async (key) => session[key],
  set: async (key, value) => (session[key] = value),
  unset: async (key) => delete session[key],
};

http
  .createServer(async (req, res) => {
    try {
      if (req.url.startsWith("/launch")) {
        await smart(req, res, storage).authorize({
          iss,
          clientId,
          ...(clientSecret ? { clientSecret } : {}),
          redirectUri: `http://127.0.0.1:${port}/back`,
          scope: "launch/patient patient/*.rs openid fhirUser offline_access",
        });
        return;
      }
      const client = await smart(req, res, storage).ready();
      const patient = await client.patient.read();
      const found = await client.request(`Observation?patient=${client.patient.id}`);
      const before = client.state.tokenResponse.access_token;
      await client.refresh();
      const again = await client.patient.read();
      const told = {
        patient: client.patient.id,
        family: again.name[0].family,
        observations: (found.entry || []).map((one) => one.resource.id),
        refreshed: client.state.tokenResponse.access_token !== before && patient.id === again.id,
        user: client.user.fhirUser,
      };
      res.end(JSON.stringify(told));
    } catch (error) {
      res.statusCode = 500;
      res.end(String(error && error.stack));
    }
  })
  .listen(Number(port), "127.0.0.1", () => console.log("listening"));
