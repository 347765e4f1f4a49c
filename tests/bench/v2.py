"""Speed of HL7 v2: tokenise + map typical ORU^R01 of 5 KB, one core. `python -m tests.bench.v2`

Prints messages per second of CPU time (median of rounds) for parse alone, parse + convert, and the size of the message. The garbage
collector runs as in the exchange's workers.
"""

import gc
import statistics
import time
from collections.abc import Callable

from fhir_server.main import GC_THRESHOLD
from mappers.v2 import convert, message, tables

ROUNDS, REPEATS = 7, 60


def typical() -> bytes:
    """A report of 16 results with patient, visit, order and specimen: about 5 KB."""
    lines = [
        "MSH|^~\\&|LIS^2.16.840.1.113883.3.1^ISO|CENTRAL LAB^2.16.840.1.113883.3.2^ISO|EHR^2.16.840.1.113883.3.3^ISO|HOSPITAL|20240312101500+0100||ORU^R01^ORU_R01|MSG000123|P|2.5.1|||AL|NE||UNICODE UTF-8",
        "PID|1||1234567^^^HOSP&2.16.840.1.113883.3.4&ISO^MR~987654321^^^USSSA&2.16.840.1.113883.4.1&ISO^SS||Everyman^Adam^Quincy^Jr^^^L||19620320|M||2106-3^White^HL70005|1 Main Street^Apt 2^Springfield^IL^62701^USA^H||^PRN^PH^^1^217^5551234|^WPN^PH^^1^217^5555678|en|M|||444333222",
        "PV1|1|I|3WEST^310^A^HOSP||||1111^Attending^Anna^^^Dr^^^NPI&2.16.840.1.113883.4.6&ISO^L^^^NPI|2222^Referrer^Rudolf^^^Dr^^^NPI&2.16.840.1.113883.4.6&ISO||MED||||||||V100200^^^HOSP&2.16.840.1.113883.3.4&ISO|||||||||||||||||||||||||20240311080000+0100",
        "ORC|RE|PO12345^EHR^2.16.840.1.113883.3.3^ISO|FO98765^LIS^2.16.840.1.113883.3.1^ISO|||CM||||||1111^Attending^Anna^^^Dr^^^NPI&2.16.840.1.113883.4.6&ISO^L^^^NPI",
        "OBR|1|PO12345^EHR^2.16.840.1.113883.3.3^ISO|FO98765^LIS^2.16.840.1.113883.3.1^ISO|24323-8^Comprehensive metabolic panel^LN^CMP^Metabolic panel^L|||20240312083000+0100||||||||||1111^Attending^Anna^^^Dr^^^NPI&2.16.840.1.113883.4.6&ISO^L^^^NPI||||||20240312101000+0100||LAB|F",
    ]
    for number in range(16):
        lines.append(
            f"OBX|{number + 1}|NM|{2345 + number}-7^Glucose [Mass/volume] in Serum or Plasma^LN^GLU{number}^Glucose^L||{90 + number}.5|mg/dL^milligram per deciliter^UCUM|70-105|N|||F|||20240312083000+0100|||||20240312095500+0100||||CENTRAL LAB^L^^^^CLIA&2.16.840.1.113883.4.7&ISO^XX^^^14D0987654"
        )
    lines.append("SPM|1|S1&EHR^S2&LIS||119364003^Serum specimen^SCT|||||||||||||20240312083000+0100|20240312090000+0100")
    return "\r".join(lines).encode()


def rate(work: Callable[[], object]) -> float:
    """Runs per second of CPU time, the median of ROUNDS."""
    figures = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(REPEATS):
            work()
        figures.append(REPEATS / (time.process_time() - start))
    return statistics.median(figures)


def main() -> None:
    """Print the figures."""
    raw, known = typical(), tables.load_tables()
    done = convert.convert(message.parse(raw), known)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)
    print(f"message {len(raw)} bytes, {len(done.bundle['entry'])} entries, problems {len(done.problems)}")
    print(f"parse            {rate(lambda: message.parse(raw)):8.0f}/s")
    print(f"parse + convert  {rate(lambda: convert.convert(message.parse(raw), known)):8.0f}/s (asked: 600)")


if __name__ == "__main__":
    main()
