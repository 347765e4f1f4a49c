"""UCUM as data: the unit atoms and prefixes, lab synonyms, molar masses."""
