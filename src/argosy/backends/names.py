"""What replicas are called: the workload's name and five characters that no other replica of it has."""

from __future__ import annotations

# Crockford's base 32 in lower case: no letter looks like a digit.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 5
NUM_SUFFIXES = len(_ALPHABET) ** _LENGTH


def replica_name(workload: str, number: int) -> str:
    """The name of a workload's replica with this number, 0 to NUM_SUFFIXES."""
    letters = []
    for _ in range(_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[digit])
    return f"{workload}-{''.join(reversed(letters))}"
