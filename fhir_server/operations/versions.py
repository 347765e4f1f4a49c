"""$versions: the FHIR versions that this server speaks. https://hl7.org/fhir/R4/capabilitystatement-operation-versions.html"""

from fhir_server.context import Context, Reply, Request
from fhir_server.interactions.operation import Operation

VERSION = "4.0"


async def versions(ctx: Context, request: Request) -> Reply:
    """GET [base]/$versions."""
    rows = [{"name": "version", "valueCode": VERSION}, {"name": "default", "valueCode": VERSION}]
    return Reply(200, {"resourceType": "Parameters", "parameter": rows})


URL = "http://hl7.org/fhir/OperationDefinition/CapabilityStatement-versions"
ROWS = (Operation("versions", URL, frozenset({"system"}), frozenset(), False, versions),)
