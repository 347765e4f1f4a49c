"""Master files (MFN): places and staff that are taken out of use, and come back. HL7 v2.8 8.5.2, table 0180."""

import pytest

from tests.feed.exchange import Exchange, msh


@pytest.mark.parametrize(
    ("kind", "record", "rtype", "element", "values"),
    [
        ("MFN^M05", "LOC|W1^R1^B1|Bed at the window|B", "Location", "status", ("active", "inactive")),
        ("MFN^M02", "STF|77|77^^^HOSP|Welby^Marcus|P|M", "Practitioner", "active", (None, False)),
    ],
)
async def test_table_0180_what_leaves_the_master_file_is_no_longer_in_use(
    kind: str, record: str, rtype: str, element: str, values: tuple[object, object]
) -> None:
    exchange = Exchange()
    there, gone = values
    seen = []
    for action in ("MAD", "MUP", "MDC", "MAC", "MDL"):
        header, _ = msh(kind, "ADT|HOSP")
        assert await exchange.send("\r".join([header, "MFI|LOC||UPD|||AL", f"MFE|{action}|||1", record])) == "AA"
        (found,) = [one for one in exchange.all(rtype) if "description" in one or rtype != "Location"]
        seen.append(found.get(element))
    assert seen == [there, there, gone, there if there is not None else True, gone]
