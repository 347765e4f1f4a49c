"""What build.py must know of the guide's spelling: typing errors of paths and conditions, names of conversions, maps that we replace."""

# wrong -> right, applied to every target path
PATHS = (
    ("valueSampedData", "valueSampledData"),
    ("practioner", "practitioner"),
    ("Practioner", "Practitioner"),
    ("PractitionerRole.Practitioner(", "PractitionerRole.practitioner("),
    ("organziation", "organization"),
    ("organization.(Organization", "organization(Organization"),
    ("occurneceTiming", "occurrenceTiming"),
    ("occurenceTiming", "occurrenceTiming"),
    ("occurrenceTIming", "occurrenceTiming"),
    ("occurrenceTiming.bounds", "occurrenceTiming.repeat.bounds"),
    ("occurrenceTiming.duration", "occurrenceTiming.repeat.duration"),
    ("payer[", "payor["),
    ("policyHolder([1]Organization", "policyHolder(Organization"),
    ("policyHolder[1]", "policyHolder"),
    ("(Annotation.text)", ".text"),
    ("individual[1](", "individual("),
    ("actor[1]", "actor"),
    ("code[1]", "code"),
    ("appointmentType[1]", "appointmentType"),
    ("minutesDuration[1]", "minutesDuration"),
    ("contact.organization[1](", "contact.organization("),
    ("actor(Location.identifier)", "actor(Location.identifier)"),
    ("system.extension-data-absent-reason", "system"),
    ("recorder.reference(", "recorder("),
    ("coding.uri", "coding.system"),
    ("valuedateTime", "valueDateTime"),
    ("medication(Medication.doseForm", "medicationReference(Medication.form"),
    ("medication(Medication.", "medicationReference(Medication."),
    ("valueCodeableConcept[1]", "valueCodeableConcept"),
    ("valueCodeableConcept.coding.value", "valueCodeableConcept.coding.code"),
    ("role.coding.value", "role.coding.code"),
)

# (map, the guide's path) -> the R4 element it can only mean: names of R5, of another resource, or a choice without its type
ROW_PATHS = {
    ("MSH[Provenance-Source]", "occurred"): "occurredDateTime",
    ("PRT[CareTeam]", "participant.coveragePeriod.start"): "participant.period.start",
    ("PRT[CareTeam]", "participant.coveragePeriod.end"): "participant.period.end",
    ("TQ1[MedicationRequest]", "text"): "dosageInstruction.text",
    ("TQ1[MedicationRequest]", "occurrenceTiming.boundsDuration"): "dosageInstruction.timing.repeat.boundsDuration",
    ("TQ1[MedicationRequest]", "occurrenceTiming.boundsPeriod.end"): "dosageInstruction.timing.repeat.boundsPeriod.end",
    ("TQ1[MedicationRequest]", "occurneceTiming.boundsPeriod.start"): "dosageInstruction.timing.repeat.boundsPeriod.start",
}

_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
_ASSERTED = "http://hl7.org/fhir/StructureDefinition/condition-assertedDate"
_VALUE = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Observation.value"
# url of an extension as the guide has it -> the one that is published: pages instead of canonicals, other versions of the same name
URLS = {
    "http://www.hl7.org/fhir/extension-condition-asserteddate": _ASSERTED,
    "http://hl7.org/fhir/R4/extension-data-absent-reason.html": _ABSENT,
    "https://hl7.org/fhir/5.0/StructureDefinition/extension-Observation.valueAttachment": _VALUE,
}
# fields whose extension has its url in the guide's comments only
FIELD_URLS = {"OBX-19": "http://hl7.org/fhir/StructureDefinition/observation-analysis-date-time"}

# rows that name their field by its title only
TITLES = {
    "TXA Edit Date/Time": "TXA-8",
    "TXA Originator Code/Name": "TXA-9",
    "TXA Document Change Reason": "TXA-21",
    "TXA Distributed Copies (Code and Name of Recipient(s) )": "TXA-23",
}

# constants: a page instead of the code system's URI
CONSTANTS = {
    "http://hl7.org/fhir/sid/us-ssn.": "http://hl7.org/fhir/sid/us-ssn",
    "https://hl7.org/fhir/R4/v3/ParticipationType/cs.html": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType",
}

# the guide's text -> one that condition.py reads
CONDITIONS = {
    'IF (OBX-2 EQUALS "SN"  AND OBX-5.1  EQUALS "<>"': 'IF OBX-2 EQUALS "SN" AND OBX-5.1 EQUALS "<>"',
    "IF PID-11 LST.COUNT EQUALS 1 AND PID-11.9 IS VALUED NOT EQUAL PID-12": "IF PID-11 COUNT EQUALS 1 AND PID-11.9 VALUED",
    'IF IAM-15 VALUED AND NOT "SEL"': 'IF IAM-15 VALUED AND IAM-15 NOT EQUALS "SEL"',
    "IF PRT-5 AND PRT-6 AREA NOT VALUED": "IF PRT-5 AND PRT-6 NOT VALUED",
    "IF PR1-7 VALUED AND PR1-5.5 VALUED": "IF PR1-7 VALUED AND PR1-5 LENGTH >= 12",
    "IF PR1-7 VALUED AND PR1-5.5 NOT VALUED": "IF PR1-7 VALUED AND PR1-5 LENGTH < 12",
    "IF PR1-5.5 IS VALUED": "IF PR1-5 LENGTH >= 12",
    "IF IN1-17 IS 'patient'": 'IF IN1-17 IN ("SEL", "01", "18", "1", "SELF")',
    'IF NOT VALUED AND RXA-21 NOT EQUALS "D"': 'IF RXA-20 NOT VALUED AND RXA-21 NOT EQUALS "D"',
}

# maps that the layer replaces whole: their rows are prose or describe other elements than they name
SKIPPED = frozenset(
    {
        "PV1[Basic-EncounterHistory]",
        "MSH[Bundle]",
        "MSH[Provenance-Transformation]",
        "MSH[Provenance-Source]",
        "TXA[Provenance]",
        "PRT[Device]",
        "DG1[EpisodeOfCare]",
        "OBX[Observation]",
        "OBX[Observation-Component]",
        "PV1[Encounter]",
        "DG1[Encounter]",
    }
)

CONVERSIONS = {
    **dict.fromkeys(
        (
            "cwe[codeableconcept]",
            "ce[codeableconcept]",
            "cne[codeableconcept]",
            "cf[codeableconcept]",
            "is[codeableconcept]",
            "id[codeableconcept]",
            "st[codeableconcept]",
        ),
        "@concept",
    ),
    "*[codeableconcept]": "@concept",
    "*[coding]": "@coding",
    "*[identifier]": "CX[Identifier]",
    "*[quantity]": "@quantity",
    "*[period]": "DR[Period]",
    "*[humanname]": "XPN[HumanName]",
    "*[annotation]": "NTE[Annotation]",
    **dict.fromkeys(("cwe[coding]", "id[coding]", "msg[coding]"), "@coding"),
    **dict.fromkeys(("cwe[code]", "id[code]", "is[code]", "msg[code]"), "@code"),
    **dict.fromkeys(("id[string]", "cwe[string]", "is[string]"), "@text"),
    **dict.fromkeys(("id[boolean]", "dtm[datetime]", "ts[datetime]", "nm[positiveint]", "dr[datetime]", "cq[decimal]", "cq[unsignedint]"), "leaf"),
    "cwe[uri]": "uri",
    "cwe[identifier]": "CWE[Identifier]",
    "st[identifier]": "ST[Identifier]",
    "cx[identifier]": "CX[Identifier]",
    **dict.fromkeys(
        ("ei[identifier-extension]", "ei[identifier-organization]", "ei[identifier-defaultassigner]", "ei[identifier-system]"), "@identifier"
    ),
    "eip[identifier-placerassignedidentifier]": "EIP[Identifier-Placer]",
    "eip[identifier-fillerassignedidentifier]": "EIP[Identifier-Filler]",
    "xpn[humanname]": "XPN[HumanName]",
    "xpn[string]": "XPN[string]",
    "xad[address]": "XAD[Address]",
    "xtn[contactpoint]": "@telecom",
    "xcn[practitioner]": "XCN[Practitioner]",
    "xcn[practitionerrole]": "XCN[PractitionerRole]",
    "xcn[patient]": "XCN[Practitioner]",
    "xcn[relatedperson]": "XCN[Practitioner]",
    "xon[organization]": "XON[Organization]",
    "xon[string]": "XON[string]",
    "xon[location]": "XON[Location]",
    "pl[location]": "@location",
    "dr[period]": "DR[Period]",
    "cq[quantity]": "@quantity",
    "cwe[quantity]": "@unit",
    "dln[identifier]": "DLN[Identifier]",
    "pln[identifier]": "PLN[Identifier]",
    "hd[organization]": "HD[Organization]",
    "hd[location]": "HD[Location]",
    "hd[device]": "HD[Device]",
    "hd[identifier]": "HD[Identifier]",
    "hd[uri]": "@authority",
    "cwe[organization]": "CWE[Organization]",
    "cwe[device]": "CWE[Device]",
    "rpt[timing]": "@repeat_pattern",
    "ri[timing]": "@interval",
    "ndl[practitionerrole]": "NDL[PractitionerRole]",
    "dld[location-discharge]": "DLD[Location]",
    "cnn[practitioner]": "CNN[Practitioner]",
    "ed[attachment]": "@document",
    "rp[attachment]": "@document",
    "nm[quantity-lengthofstay]": "NM[Quantity-LengthOfStay]",
    "ei[procedure]": "EI[Procedure]",
    "ei[condition]": "EI[Condition]",
    "hd[messageheader.source-name]": "@authority_name",
    "hd[messageheader.source-endpoint]": "@endpoint",
    "hd[messageheader.destination-name]": "@authority_name",
    "hd[messageheader.destination-endpoint]": "@endpoint",
}

# vocabulary column -> file of tables/codes, where the names differ
CODE_FILES = {
    "Yes/NoIndicator": "",
    "Yes/NoIndicator[AvailabilityStatus]": "YesNoIndicator_AvailabilityStatus",
    "Additive/Preservative": "AdditivePreservative",
    "Contact Role": "ContactRole",
}
