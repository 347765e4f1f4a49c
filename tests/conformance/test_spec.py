"""The Spec says what R4 publishes."""

from conformance.spec import load_spec

SPEC = load_spec()


def test_every_concrete_resource_type_of_r4_is_there():
    assert len(SPEC.types) == 146
    assert {"Patient", "Observation", "Bundle", "Parameters", "SubstanceSpecification"} <= SPEC.types
    assert not {"Resource", "DomainResource", "HumanName"} & SPEC.types


def test_elements_stand_in_the_order_of_the_standard():
    names = list(SPEC.children("Patient"))
    assert names[:8] == ["id", "meta", "implicitRules", "language", "text", "contained", "extension", "modifierExtension"]
    assert names.index("deceased") < names.index("address") < names.index("link")


def test_a_choice_element_has_one_json_name_per_type():
    names = SPEC.properties("Observation")
    assert names["valueQuantity"][1] == "Quantity"
    assert names["valueDateTime"][0].path == "Observation.value[x]"
    assert "value" not in names


def test_a_content_reference_leads_to_the_element_it_names():
    link = SPEC.element("Bundle.entry.link")
    assert link is not None
    assert link.content == "Bundle.link"
    assert "relation" in SPEC.children(link.content)


def test_logical_ids_are_ids_and_element_ids_are_strings():
    assert SPEC.element("Patient.id").types == ("id",)
    assert SPEC.element("HumanName.id").types == ("string",)


def test_a_parameter_of_many_types_is_narrowed_to_the_branch_of_each():
    assert SPEC.param("Observation", "code").expression == "Observation.code"
    assert SPEC.param("Patient", "phone").expression == "Patient.telecom.where(system='phone')"


def test_general_parameters_apply_to_every_type_and_text_only_to_domain_resources():
    assert all("_id" in SPEC.params(rtype) for rtype in SPEC.types)
    assert "_text" in SPEC.params("Patient")
    assert "_text" not in SPEC.params("Bundle")


def test_every_bound_code_list_that_r4_publishes_is_there():
    assert SPEC.codes("http://hl7.org/fhir/ValueSet/administrative-gender|4.0.1") == {
        "http://hl7.org/fhir/administrative-gender": {"male", "female", "other", "unknown"}
    }
    assert SPEC.codes("http://hl7.org/fhir/ValueSet/mimetypes") is None


def test_compartments_name_the_parameters_that_make_a_member():
    assert "subject" in SPEC.compartments["Patient"]["Observation"]
    assert set(SPEC.compartments) == {"Device", "Encounter", "Patient", "Practitioner", "RelatedPerson"}


def test_definitions_are_found_by_canonical_and_version():
    url = "http://hl7.org/fhir/StructureDefinition/vitalsigns"
    assert SPEC.definition(url)["type"] == "Observation"
    assert SPEC.definition(url + "|4.0.1") == SPEC.definition(url)
    assert SPEC.definition(url + "|9.9.9") is None
    assert SPEC.definition("http://terminology.hl7.org/CodeSystem/v2-0001", "CodeSystem")["concept"]


def test_specialised_types_know_their_ancestors():
    assert SPEC.is_a("Age", "Quantity")
    assert SPEC.is_a("Patient", "DomainResource")
    assert not SPEC.is_a("Bundle", "DomainResource")


def test_invariants_with_one_key_and_two_meanings_are_told_apart():
    assert "lastModified" in SPEC.rules["inv-1@Task"].expression
    assert "part.exists()" in SPEC.rules["inv-1@Parameters"].expression
