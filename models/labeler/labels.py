"""What a report says about one pathology."""

from __future__ import annotations

from enum import StrEnum


class Label(StrEnum):
    """The four answers of the CheXpert labeler, which writes 1, 0, -1 and blank for them."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    UNCERTAIN = "uncertain"
    ABSENT = "absent"

    @property
    def number(self) -> float | None:
        """CheXpert's number: 1.0, 0.0, -1.0, or ``None`` where its file has a blank."""
        return _NUMBERS[self]

    @classmethod
    def from_number(cls, number: float | None) -> Label:
        """Read CheXpert's number; ``None`` and NaN are blank.

        Raises:
            ValueError: If the number is none of 1, 0 and -1.
        """
        if number is None or number != number:
            return cls.ABSENT
        for label, value in _NUMBERS.items():
            if value == number:
                return label
        raise ValueError(f"a label is 1, 0, -1 or blank, not {number!r}")


_NUMBERS: dict[Label, float | None] = {
    Label.POSITIVE: 1.0,
    Label.NEGATIVE: 0.0,
    Label.UNCERTAIN: -1.0,
    Label.ABSENT: None,
}
