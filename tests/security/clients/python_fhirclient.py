"""The Python `fhirclient` as an app: prints where to go, reads the address it is sent back to, then reads, searches, refreshes."""

import json
import sys

from fhirclient import client
from fhirclient.models.observation import Observation
from fhirclient.models.patient import Patient

base, back, app_id, secret = sys.argv[1:5]
settings = {
    "app_id": app_id,
    "api_base": base,
    "redirect_uri": back,
    "scope": "launch/patient patient/*.rs openid fhirUser offline_access",
    "app_secret": secret or None,
}
smart = client.FHIRClient(settings=settings)
smart.prepare()
print(smart.authorize_url, flush=True)
smart.handle_callback(sys.stdin.readline().strip())
first = smart.server.auth.access_token
found = Observation.where(struct={"patient": smart.patient_id}).perform_resources(smart.server)
renewed = smart.reauthorize()
family = Patient.read(smart.patient_id, smart.server).name[0].family
changed = smart.server.auth.access_token != first
print(json.dumps({"patient": smart.patient_id, "family": family, "observations": [one.id for one in found], "refreshed": bool(renewed) and changed}))
