"""Packages: read without an index, dependencies from a folder, hostile archives refused."""

import gzip
import io
import json
import tarfile
import tracemalloc

import pytest

from conformance.outcome import Refusal
from conformance.package import open_package, plan, version_key
from conformance.shelf import install, installed, names
from conformance.spec import load_spec


def manifest(name="a.b", version="1.0.0", **more):
    return json.dumps({"name": name, "version": version, "fhirVersions": ["4.0.1"], **more}).encode()


def definition(url="http://example.org/vs", version="1", **more):
    return json.dumps({"resourceType": "ValueSet", "url": url, "version": version, "status": "active", "text": {"div": "x"}, **more}).encode()


def archive(path, files, links=()):
    with tarfile.open(path, "w:gz") as made:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
        for name, target in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            made.addfile(member)
    return path


def test_a_package_is_read_without_an_index_from_an_archive_and_a_folder(tmp_path):
    files = {"package/package.json": manifest(), "package/x.json": definition(), "package/example/y.json": definition("http://example.org/example")}
    packed = open_package(archive(tmp_path / "a.tgz", files))
    for name, data in files.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(data)
    for package in (packed, open_package(tmp_path / "folder"), open_package(tmp_path / "folder" / "package")):
        assert package.urls("ValueSet") == ("http://example.org/vs",)
        assert "text" not in package.definition("http://example.org/vs")
        assert package.definition("http://example.org/vs", "2") is None


@pytest.mark.parametrize("name", ["/etc/passwd", "package/../../x.json", "../x.json", "package/..\\..\\x.json", "C:/x.json"])
def test_a_file_outside_its_folder_is_refused(tmp_path, name):
    path = archive(tmp_path / "a.tgz", {"package/package.json": manifest(), name: b"{}"})
    with pytest.raises(Refusal, match="outside its folder"):
        open_package(path)


def test_links_are_refused(tmp_path):
    path = archive(tmp_path / "a.tgz", {"package/package.json": manifest()}, [("package/x.json", "/etc/passwd")])
    with pytest.raises(Refusal, match="link"):
        open_package(path)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "package.json").write_bytes(manifest())
    (folder / "x.json").symlink_to("/etc/hostname")
    with pytest.raises(Refusal, match="link"):
        open_package(folder)


def test_a_bomb_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("conformance.package.MAX_BYTES", 100_000)
    path = archive(tmp_path / "a.tgz", {"package/package.json": manifest(), "package/big.json": b" " * 10_000_000})
    assert path.stat().st_size < 20_000
    with pytest.raises(Refusal) as refused:
        open_package(path)
    assert refused.value.status == 413


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("conformance.package.MAX_FILES", 10)
    files = {"package/package.json": manifest(), **{f"package/{at}.json": b"{}" for at in range(20)}}
    with pytest.raises(Refusal, match="larger than"):
        open_package(archive(tmp_path / "a.tgz", files))


@pytest.mark.parametrize("data", [b"", b"not gzip", b"\x1f\x8b\x08\x00broken"])
def test_what_is_no_archive_is_refused(tmp_path, data):
    path = tmp_path / "a.tgz"
    path.write_bytes(data)
    with pytest.raises(Refusal):
        open_package(path)


def test_a_cut_archive_is_refused(tmp_path):
    whole = archive(tmp_path / "a.tgz", {"package/package.json": manifest(), "package/x.json": bytes(range(256)) * 400}).read_bytes()
    (tmp_path / "b.tgz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Refusal):
        open_package(tmp_path / "b.tgz")


def test_another_fhir_version_and_a_missing_manifest_are_refused(tmp_path):
    five = archive(tmp_path / "five.tgz", {"package/package.json": manifest(fhirVersions=["5.0.0"])})
    with pytest.raises(Refusal, match=r"5\.0\.0"):
        open_package(five)
    with pytest.raises(Refusal, match=r"package\.json"):
        open_package(archive(tmp_path / "none.tgz", {"package/x.json": definition()}))
    with pytest.raises(Refusal, match="not JSON"):
        open_package(archive(tmp_path / "broken.tgz", {"package/package.json": manifest(), "package/x.json": b"{"}))


def test_dependencies_come_first_and_missing_ones_are_told(tmp_path):
    archive(tmp_path / "b.tgz", {"package/package.json": manifest("b", "2.0.1")})
    archive(tmp_path / "b-old.tgz", {"package/package.json": manifest("b", "2.0.0")})
    (tmp_path / "notes.txt").write_text("no package")
    needs = {"hl7.fhir.r4.core": "4.0.1", "b": "2.0.x", "c": "1.0.0"}
    made = plan(archive(tmp_path / "a.tgz", {"package/package.json": manifest("a", "1.0.0", dependencies=needs)}), tmp_path)
    assert [(each.name, each.version) for each in made.packages] == [("b", "2.0.1"), ("a", "1.0.0")]
    assert [(issue.severity, issue.code) for issue in made.issues] == [("warning", "not-found")]


def test_a_circle_of_dependencies_is_an_error(tmp_path):
    archive(tmp_path / "b.tgz", {"package/package.json": manifest("b", dependencies={"a": "1.0.0"})})
    made = plan(archive(tmp_path / "a.tgz", {"package/package.json": manifest("a", dependencies={"b": "1.0.0"})}), tmp_path)
    assert any(issue.severity == "error" and "a -> b -> a" in issue.text for issue in made.issues)


def test_two_versions_stand_side_by_side_and_the_newest_answers_a_bare_canonical(tmp_path):
    paths = [
        archive(
            tmp_path / f"{version}.tgz",
            {"package/package.json": manifest("a", version), "package/x.json": definition(version=version, title=version)},
        )
        for version in ("10.0.0", "9.0.0")
    ]
    spec = load_spec(paths)
    assert spec.definition("http://example.org/vs")["title"] == "10.0.0"
    assert spec.definition("http://example.org/vs|9.0.0")["title"] == "9.0.0"
    assert plan(paths[1], installed=[open_package(paths[0])]).issues[0].code == "conflict"


def test_versions_are_ordered_by_number_and_a_ballot_comes_before_its_release():
    assert sorted(["10.0.0", "9.0.0", "9.0.0-ballot", "9.0.1"], key=version_key) == ["9.0.0-ballot", "9.0.0", "9.0.1", "10.0.0"]


def test_search_parameters_of_a_package_become_live(tmp_path):
    param = {
        "resourceType": "SearchParameter",
        "url": "http://example.org/sp",
        "code": "eye",
        "base": ["Patient"],
        "type": "token",
        "status": "active",
    }
    data = json.dumps({**param, "expression": "Patient.extension.where(url='http://example.org/eye').value"}).encode()
    spec = load_spec([archive(tmp_path / "a.tgz", {"package/package.json": manifest(), "package/sp.json": data})])
    assert spec.param("Patient", "eye").type == "token"
    assert load_spec().param("Patient", "eye") is None


def test_an_installation_puts_a_package_and_its_dependencies_on_the_shelf(tmp_path):
    archive(tmp_path / "b.tgz", {"package/package.json": manifest("b", "2.0.0")})
    folder = tmp_path / "guide"
    folder.mkdir()
    (folder / "package.json").write_bytes(manifest("a", "1.0.0", dependencies={"b": "2.0.0", "c": "1.0.0"}))
    (folder / "x.json").write_bytes(definition())
    shelf = tmp_path / "data" / "packages"
    assert installed(shelf) == []
    made = install(folder, shelf, tmp_path)
    assert names(made.packages) == ["b#2.0.0", "a#1.0.0"]
    assert [issue.severity for issue in made.issues] == ["warning"]
    assert [path.name for path in installed(shelf)] == ["a-1.0.0.tgz", "b-2.0.0.tgz"]
    assert load_spec(installed(shelf)).definition("http://example.org/vs")["version"] == "1"


def test_an_installation_that_fails_leaves_the_shelf_as_it_was(tmp_path):
    shelf = tmp_path / "shelf"
    archive(tmp_path / "b.tgz", {"package/package.json": manifest("b", dependencies={"a": "1.0.0"})})
    circle = archive(tmp_path / "a.tgz", {"package/package.json": manifest("a", dependencies={"b": "1.0.0"})})
    with pytest.raises(Refusal, match="circle"):
        install(circle, shelf, tmp_path)
    with pytest.raises(Refusal, match="letters"):
        install(archive(tmp_path / "evil.tgz", {"package/package.json": manifest("../../x")}), shelf)
    assert not shelf.exists() or list(shelf.iterdir()) == []


@pytest.mark.parametrize(
    "more",
    [
        {"name": "../x"},
        {"name": 5},
        {"version": ["1"]},
        {"version": ""},
        {"dependencies": ["a"]},
        {"dependencies": None},
        {"dependencies": {"a": 1}},
        {"fhirVersions": "4.0.1"},
        {"fhirVersions": 4},
        {"fhirVersions": [4]},
    ],
)
def test_a_misshapen_manifest_is_refused(tmp_path, more):
    with pytest.raises(Refusal, match=r"package\.json"):
        open_package(archive(tmp_path / "a.tgz", {"package/package.json": manifest(**more)}))


def test_two_manifests_are_refused(tmp_path):
    path = tmp_path / "a.tgz"
    with tarfile.open(path, "w:gz") as made:
        for name in ("a.b", "a.c"):
            member = tarfile.TarInfo("package/package.json")
            member.size = len(manifest(name))
            made.addfile(member, io.BytesIO(manifest(name)))
    with pytest.raises(Refusal, match="twice"):
        open_package(path)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_bomb_in_the_headers_of_an_archive_is_refused_before_it_is_read(tmp_path, kind):
    """tarfile reads extended headers whole: 40 MB of them are 40 kB in the archive, of which 10 kB are unpacked at a time."""
    header = tarfile.TarInfo("package/x.json")
    header.type, header.size = kind, 40_000_000
    path = tmp_path / "a.tgz"
    path.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + b"1" * header.size, 1))
    tracemalloc.start()
    try:
        with pytest.raises(Refusal) as caught:
            open_package(path)
        assert tracemalloc.get_traced_memory()[1] < 15_000_000
    finally:
        tracemalloc.stop()
    assert caught.value.status == 413


@pytest.mark.parametrize("data", [b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000])
def test_a_file_nested_without_end_is_refused(tmp_path, data):
    with pytest.raises(Refusal) as caught:
        open_package(archive(tmp_path / "a.tgz", {"package/package.json": manifest(), "package/a.json": data}))
    assert caught.value.status == 413


def test_a_resource_type_that_is_no_text_is_passed_over(tmp_path):
    files = {"package/package.json": manifest(), "package/a.json": b'{"resourceType":["x"],"url":"http://x"}'}
    assert not open_package(archive(tmp_path / "a.tgz", files)).index
