"""What became of each scenario, for people."""

from typing import NamedTuple


class Row(NamedTuple):
    """One line of the table."""

    scenario: str
    faults: dict[str, int]
    events: int
    users: int
    different: int | None
    """None if the run did not come so far."""
    seconds: float


def table(rows):
    """Return the lines of the table: what was done to whom, and what was different then."""
    cells = [("scenario", "faults injected", "events", "users", "different", "seconds")]
    for row in rows:
        faults = ", ".join(f"{number} {fault}" for fault, number in row.faults.items())
        different = "unfinished" if row.different is None else f"{row.different:,}"
        numbers = (f"{row.events:,}", f"{row.users:,}", different, f"{row.seconds:.0f}")
        cells.append((row.scenario, faults, *numbers))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
