"""What the authorization server says of itself. Every field stands for an endpoint or a behaviour that a test uses.

https://hl7.org/fhir/smart-app-launch/STU2.2/conformance.html, https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderMetadata,
RFC 8414 (OAuth metadata), RFC 9207 section 3 (iss parameter).
"""

from typing import Any

from fhir_server.security.authserver.keys import ALGORITHM
from fhir_server.security.authserver.place import Place
from fhir_server.security.authserver.scope import ADVERTISED

Json = dict[str, Any]
GRANT_TYPES = ("authorization_code", "refresh_token", "client_credentials")
AUTH_METHODS = ("client_secret_basic", "client_secret_post", "private_key_jwt", "none")
SMART_METHODS = AUTH_METHODS[:3]  # SMART lists what confidential clients may use
ASSERTION_ALGORITHMS = ("RS384", "ES384")
OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
CAPABILITIES = (
    "launch-ehr",
    "launch-standalone",
    "authorize-post",
    "client-public",
    "client-confidential-symmetric",
    "client-confidential-asymmetric",
    "sso-openid-connect",
    "context-banner",
    "context-style",
    "context-ehr-patient",
    "context-ehr-encounter",
    "context-standalone-patient",
    "context-standalone-encounter",
    "permission-offline",
    "permission-online",
    "permission-patient",
    "permission-user",
    "permission-v1",
    "permission-v2",
)


def _oauth(place: Place) -> Json:
    return {
        "issuer": place.base,
        "jwks_uri": place.at("jwks"),
        "authorization_endpoint": place.at("authorize"),
        "token_endpoint": place.at("token"),
        "introspection_endpoint": place.at("introspect"),
        "revocation_endpoint": place.at("revoke"),
        "grant_types_supported": list(GRANT_TYPES),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "scopes_supported": list(ADVERTISED),
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_signing_alg_values_supported": list(ASSERTION_ALGORITHMS),
        "authorization_response_iss_parameter_supported": True,
    }


def smart_configuration(place: Place, brand: Json | None = None) -> Json:
    """`.well-known/smart-configuration`. brand: `user_access_brand_bundle` and `..._identifier`, where one is configured."""
    return {
        **_oauth(place),
        "management_endpoint": place.at("manage"),
        "token_endpoint_auth_methods_supported": list(SMART_METHODS),
        "capabilities": list(CAPABILITIES),
        **(brand or {}),
    }


def openid_configuration(place: Place) -> Json:
    """`.well-known/openid-configuration`."""
    return {
        **_oauth(place),
        "token_endpoint_auth_methods_supported": list(AUTH_METHODS),
        "introspection_endpoint_auth_methods_supported": list(SMART_METHODS),
        "revocation_endpoint_auth_methods_supported": list(AUTH_METHODS),
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
        "claims_supported": ["iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "fhirUser", "profile"],
        "prompt_values_supported": ["none", "login", "consent"],
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
        "claims_parameter_supported": False,
    }


def oauth_uris(place: Place) -> Json:
    """The extension of CapabilityStatement.rest.security by which SMART 1 clients find the endpoints."""
    names = {"authorize": "authorize", "token": "token", "introspect": "introspect", "revoke": "revoke", "manage": "manage"}
    return {"url": OAUTH_URIS, "extension": [{"url": url, "valueUri": place.at(name)} for url, name in names.items()]}
