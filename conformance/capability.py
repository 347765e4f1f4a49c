"""What is really enabled -> CapabilityStatement and TerminologyCapabilities. https://hl7.org/fhir/R4/capabilitystatement.html

`enabled` is a mapping made by the server from its own tables, so that the statement cannot promise what no route serves:

    base            the public base URL
    name, version   of the software; date: when this statement last changed (FHIR dateTime)
    interactions    rtype -> interaction codes ('read', 'vread', 'create' ...); types that are not there are not listed
    system          interaction codes of the whole system ('transaction', 'batch', 'search-system', 'history-system')
    formats, patch_formats   MIME types
    params          rtype -> search parameters that are served (default: all of the Spec)
    operations      rows (code, definition url, levels {'system','type','instance'}, types {'*' or names})
    security        CapabilityStatement.rest.security, or nothing
    conditional     facts of the resource rows: conditionalCreate, conditionalRead, conditionalUpdate, conditionalDelete, updateCreate, versioning,
                    readHistory, referencePolicy
    includes        False to leave searchInclude and searchRevInclude out
    features        rows (definition url, true or a code): application features
    instantiates    urls of CapabilityStatements that this one keeps
    terminology     facts of TerminologyCapabilities: codeSystems [(url, [versions])], codeSearch, expansion parameters
"""

from collections.abc import Iterable, Mapping
from typing import Any

from conformance.spec import Param, Spec

Json = dict[str, Any]

FEATURE = "http://hl7.org/fhir/uv/application-feature/StructureDefinition/feature"
MODES = ("full", "normative", "terminology")
TERMINOLOGY_TYPES = frozenset(["CodeSystem", "ValueSet", "ConceptMap", "NamingSystem"])
CONDITIONAL: Mapping[str, Any] = {
    "versioning": "versioned",
    "readHistory": True,
    "updateCreate": True,
    "conditionalCreate": True,
    "conditionalRead": "full-support",
    "conditionalUpdate": True,
    "conditionalDelete": "multiple",
    "referencePolicy": ["literal", "logical", "local"],
}


def capability(spec: Spec, enabled: Mapping[str, Any], mode: str = "full") -> Json:
    """The CapabilityStatement; mode 'normative' lists only what is normative in R4. ValueError for another mode ('terminology' is another resource)."""
    if mode not in ("full", "normative"):
        raise ValueError("mode is full or normative")
    listed = sorted(set(enabled["interactions"]) & (spec.normative if mode == "normative" else spec.types))
    includes = _includes(spec, enabled, listed) if enabled.get("includes", True) else {}
    rest: Json = {
        "mode": "server",
        "resource": [_resource(spec, enabled, rtype, includes) for rtype in listed],
        "interaction": [{"code": code} for code in enabled.get("system", ())],
        "searchParam": [_param(each) for code, each in sorted(spec.params("Basic").items()) if code in _common(spec, enabled)],
        "operation": _operations(enabled, "system", ""),
        "compartment": [f"http://hl7.org/fhir/CompartmentDefinition/{name.lower()}" for name in sorted(spec.compartments)],
    }
    if enabled.get("security"):
        rest["security"] = enabled["security"]
    return {
        **_head("CapabilityStatement", enabled),
        **({"extension": [_feature(url, value) for url, value in enabled["features"]]} if enabled.get("features") else {}),
        **({"instantiates": list(enabled["instantiates"])} if enabled.get("instantiates") else {}),
        "implementation": {"description": enabled.get("description", enabled["name"]), "url": enabled["base"]},
        "fhirVersion": spec.version,
        "format": list(enabled["formats"]),
        **({"patchFormat": list(enabled["patch_formats"])} if enabled.get("patch_formats") else {}),
        **({"implementationGuide": guides} if (guides := _guides(spec)) else {}),
        "rest": [{key: value for key, value in rest.items() if value}],
    }


def _feature(definition: str, value: bool | str) -> Json:
    """A feature by its definition. https://hl7.org/fhir/uv/application-feature"""
    said: Json = {"valueBoolean": value} if isinstance(value, bool) else {"valueCode": value}
    return {"url": FEATURE, "extension": [{"url": "definition", "valueCanonical": definition}, {"url": "value", **said}]}


def _head(rtype: str, enabled: Mapping[str, Any]) -> Json:
    return {
        "resourceType": rtype,
        "url": f"{enabled['base']}/metadata" + ("" if rtype == "CapabilityStatement" else "?mode=terminology"),
        "version": enabled["version"],
        "name": "Exchange" if rtype == "CapabilityStatement" else "ExchangeTerminology",
        "title": enabled["name"],
        "status": "active",
        "date": enabled["date"],
        "kind": "instance",
        "software": {
            "name": enabled["name"],
            "version": enabled["version"],
            **({"releaseDate": enabled["date"]} if rtype == "CapabilityStatement" else {}),
        },
    }


def _resource(spec: Spec, enabled: Mapping[str, Any], rtype: str, includes: Mapping[str, list[str]]) -> Json:
    params = _served(spec, enabled, rtype)
    row: Json = {
        "type": rtype,
        "profile": f"http://hl7.org/fhir/StructureDefinition/{rtype}",
        "supportedProfile": supported_profiles(spec, rtype),
        "interaction": [{"code": code} for code in enabled["interactions"][rtype]],
        **CONDITIONAL,
        **enabled.get("conditional", {}),
        "searchInclude": ["*", *(f"{rtype}:{each.code}" for each in params if each.type == "reference")] if includes else [],
        "searchRevInclude": includes.get(rtype, []),
        "searchParam": [_param(each) for each in params],
        "operation": _operations(enabled, "type", rtype),
    }
    return {key: value for key, value in row.items() if value not in ([], None)}


def _served(spec: Spec, enabled: Mapping[str, Any], rtype: str) -> list[Param]:
    served = enabled.get("params", {}).get(rtype)
    chosen: Iterable[Param] = spec.params(rtype).values() if served is None else served
    return sorted(chosen, key=lambda each: each.code)


def _common(spec: Spec, enabled: Mapping[str, Any]) -> set[str]:
    """Codes of the parameters that every listed type serves: those of Resource."""
    listed = list(enabled["interactions"])
    return (
        set.intersection(*({each.code for each in _served(spec, enabled, rtype) if "Resource" in each.base} for rtype in listed)) if listed else set()
    )


def _param(param: Param) -> Json:
    return {"name": param.code, "definition": param.url, "type": param.type}


def _includes(spec: Spec, enabled: Mapping[str, Any], listed: Iterable[str]) -> dict[str, list[str]]:
    """Target type -> 'Source:param' of every reference parameter that may lead there."""
    found: dict[str, list[str]] = {}
    for rtype in listed:
        for param in _served(spec, enabled, rtype):
            for target in param.targets if param.type == "reference" else ():
                found.setdefault(target, []).append(f"{rtype}:{param.code}")
    return found


def _operations(enabled: Mapping[str, Any], level: str, rtype: str) -> list[Json]:
    """Operations of the system, or of a type and its instances."""
    wanted = {"system"} if level == "system" else {"type", "instance"}
    rows = [row for row in enabled.get("operations", ()) if wanted & set(row[2]) and (level == "system" or {"*", rtype} & set(row[3]))]
    return [{"name": name, "definition": url} for name, url in sorted({(str(row[0]), str(row[1])) for row in rows})]  # once, on however many levels


def supported_profiles(spec: Spec, rtype: str) -> list[str]:
    """Profiles of installed packages, and stored ones, on a resource type ('url|version')."""
    found: dict[str, list[str]] = spec.memo.setdefault("supported profiles", {})
    if not found:
        found |= _profiles(spec)
    return found.get(rtype, [])


def _profiles(spec: Spec) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for package in (*spec.packages, *((spec.stored,) if spec.stored else ())):
        for url in package.urls("StructureDefinition"):
            definition = package.definition(url, "", "StructureDefinition") or {}
            if definition.get("derivation") == "constraint" and definition.get("kind") == "resource":
                version = str(definition.get("version", package.version))
                found.setdefault(str(definition.get("type")), []).append(f"{url}|{version}" if version else url)
    return found


def _guides(spec: Spec) -> list[str]:
    urls = [(package, package.urls("ImplementationGuide")) for package in spec.packages]
    return [f"{url}|{package.version}" for package, found in urls for url in found]


def terminology_capabilities(spec: Spec, enabled: Mapping[str, Any]) -> Json:
    """The TerminologyCapabilities of what is loaded. https://hl7.org/fhir/R4/terminologycapabilities.html"""
    facts = enabled.get("terminology", {})
    systems = [
        {"uri": url, **({"version": [{"code": each, "isDefault": at == 0} for at, each in enumerate(versions)]} if versions else {})}
        for url, versions in facts.get("codeSystems", ())
    ]
    parameters = [{"name": name} for name in facts.get("parameters", ())]
    return {
        **_head("TerminologyCapabilities", enabled),
        "implementation": {"description": enabled["name"], "url": enabled["base"]},
        **({"codeSystem": systems} if systems else {}),
        "expansion": {"hierarchical": True, "paging": True, "incomplete": False, **({"parameter": parameters} if parameters else {})},
        "codeSearch": facts.get("codeSearch", "all"),
        "validateCode": {"translations": True},
        "translation": {"needsMap": True},
        "closure": {"translation": False},
    }
