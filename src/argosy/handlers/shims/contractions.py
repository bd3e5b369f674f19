"""English contractions and what they stand for, as text handlers write them out."""

from __future__ import annotations

_NEGATED = {
    "ain't": "is not", "can't": "cannot", "shan't": "shall not", "won't": "will not",
    **{
        f"{verb}n't": f"{verb} not"
        for verb in (
            "are", "could", "did", "does", "do", "had", "has", "have", "is", "might", "must", "need", "ought",
            "should", "was", "were", "would",
        )
    },
}  # fmt: skip
_SUBJECTS = (
    "he", "how", "i", "it", "she", "so", "that", "there", "they", "this", "we", "what", "when", "where", "who", "why",
    "you",
)  # fmt: skip
_PLURAL = ("they", "we", "you")
_FIXED = {
    "'cause": "because",
    "i'm": "i am",
    "let's": "let us",
    "ma'am": "madam",
    "o'clock": "of the clock",
    "y'all": "you all",
}

CONTRACTION_MAP: dict[str, str] = {
    **{f"{short}'ve": f"{full} have" for short, full in _NEGATED.items()},
    **{f"{verb}'ve": f"{verb} have" for verb in ("could", "might", "must", "should", "would")},
    **{f"{who}'d've": f"{who} would have" for who in _SUBJECTS},
    **{f"{who}'ll've": f"{who} will have" for who in _SUBJECTS},
    **_NEGATED,
    **{f"{who}'d": f"{who} would" for who in _SUBJECTS},
    **{f"{who}'ll": f"{who} will" for who in _SUBJECTS},
    **{f"{who}'s": f"{who} is" for who in _SUBJECTS if who not in (*_PLURAL, "i")},
    **{f"{who}'re": f"{who} are" for who in _PLURAL},
    **{f"{who}'ve": f"{who} have" for who in (*_PLURAL, "i", "what", "where", "who")},
    **_FIXED,
}
