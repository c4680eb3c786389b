"""What the lists of ci/ name of the source, where the source calls it by another name today.

A function, type, field, variable or test that is renamed gets one entry here, for loom_mutants_list.py,
mutants_survivors.txt and coverage.py together. An entry can be resolved into the lists at any time.
"""

import re

NAMES = {}


def current(text):
    """A text with the names of today."""
    return re.sub(r"\w+", lambda word: NAMES.get(word[0], word[0]), text)
