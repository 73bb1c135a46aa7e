"""Messages are held to what they tell, not to their wording."""

import re


def names(message: object, *facts: object) -> None:
    """Assert that a message names every fact (a file, a row, a value, the command that helps) as a word of its own."""
    told, lacking = str(message), []
    for fact in map(str, facts):
        before = r"(?<!\w)(?<!\d\.)" if fact[0].isalnum() else ""  # neither the 5 of 0.5 or of 15 nor that of 5.1
        after = r"(?!\w)(?!\.\d)" if fact[-1].isalnum() else ""
        if not re.search(before + re.escape(fact) + after, told):
            lacking.append(fact)
    assert not lacking, f"{lacking} not named in:\n{told}"
