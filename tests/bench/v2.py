"""Speed of HL7 v2: tokenise + map typical ORU^R01 of 5 KB, one core. `python -m tests.bench.v2`

No message comes twice. Prints messages per second of CPU time (median of rounds) for parse alone, parse + convert, and the size of the message. The garbage
collector runs as in the exchange's workers.
"""

import gc
import statistics
import time
from collections.abc import Callable

from fhir_server.main import GC_THRESHOLD
from mappers.v2 import convert, message, tables

ROUNDS, REPEATS = 9, 100


def typical(number: int = 0) -> bytes:
    """A report of 16 results with patient, visit, order and specimen: about 5 KB.

    Another number is another patient, order, time and set of values, as a feed has them; panel, places and (forty) doctors come again.
    """
    day, clock, doctor = 12 + number % 16, f"{10 + number % 12}{15 + number % 40:02d}", 1111 + number % 40
    attending = f"{doctor}^Attending^Anna^^^Dr^^^NPI&2.16.840.1.113883.4.6&ISO^L^^^NPI"
    orders = f"PO{12345 + number}^EHR^2.16.840.1.113883.3.3^ISO|FO{98765 + number}^LIS^2.16.840.1.113883.3.1^ISO"
    lines = [
        f"MSH|^~\\&|LIS^2.16.840.1.113883.3.1^ISO|CENTRAL LAB^2.16.840.1.113883.3.2^ISO|EHR^2.16.840.1.113883.3.3^ISO|HOSPITAL|202403{day}{clock}00+0100||ORU^R01^ORU_R01|MSG{123 + number:06d}|P|2.5.1|||AL|NE||UNICODE UTF-8",
        f"PID|1||{1234567 + number}^^^HOSP&2.16.840.1.113883.3.4&ISO^MR~{987654321 - number}^^^USSSA&2.16.840.1.113883.4.1&ISO^SS||Everyman^Adam{number or ''}^Quincy^Jr^^^L||{1962 + number % 40}0320|M||2106-3^White^HL70005|{1 + number} Main Street^Apt 2^Springfield^IL^62701^USA^H||^PRN^PH^^1^217^{5551234 + number}|^WPN^PH^^1^217^{5555678 + number}|en|M|||{444333222 + number}",
        f"PV1|1|I|3WEST^{310 + number % 12}^A^HOSP||||{attending}|2222^Referrer^Rudolf^^^Dr^^^NPI&2.16.840.1.113883.4.6&ISO||MED|||||||||V{100200 + number}^^^HOSP&2.16.840.1.113883.3.4&ISO|||||||||||||||||||||||||202403{day - 1}080000+0100",
        f"ORC|RE|{orders}||CM|||||||{attending}",
        f"OBR|1|{orders}|24323-8^Comprehensive metabolic panel^LN^CMP^Metabolic panel^L|||202403{day}083000+0100|||||||||{attending}||||||202403{day}{clock}00+0100||LAB|F",
    ]
    for row in range(16):
        lines.append(
            f"OBX|{row + 1}|NM|{2345 + row}-7^Glucose [Mass/volume] in Serum or Plasma^LN^GLU{row}^Glucose^L||{90 + (row + number) % 90}.5|mg/dL^milligram per deciliter^UCUM|70-105|N|||F|||202403{day}083000+0100|||||202403{day}095500+0100||||CENTRAL LAB^L^^^^CLIA&2.16.840.1.113883.4.7&ISO^XX^^^14D0987654"
        )
    lines.append(f"SPM|1|S{1 + number}&EHR^S{2 + number}&LIS||119364003^Serum specimen^SCT|||||||||||||202403{day}083000+0100|202403{day}090000+0100")
    return "\r".join(lines).encode()


def rate(work: Callable[[bytes], object]) -> float:
    """Messages per second of CPU time, each another one, the median of ROUNDS."""
    figures = []
    for turn in range(ROUNDS):
        messages = [typical(number) for number in range(turn * REPEATS, (turn + 1) * REPEATS)]
        start = time.process_time()
        for raw in messages:
            work(raw)
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
    print(f"parse            {rate(message.parse):8.0f}/s")
    print(f"parse + convert  {rate(lambda raw: convert.convert(message.parse(raw), known)):8.0f}/s (asked: 600)")


if __name__ == "__main__":
    main()
