"""Tables in Markdown pages, between marks that stay."""

_END = "<!-- end of table -->"


def insert(page: str, mark: str, table: str) -> str:
    """Replaces what stands between the marks of a table.

    Raises:
      ValueError: If the page has no such marks.
    """
    start = f"<!-- table: {mark} -->"
    head, opening, rest = page.partition(start)
    _, closing, tail = rest.partition(_END)
    if not opening or not closing:
        raise ValueError(f"The page has no {start!r} followed by {_END!r}; add both lines.")
    return f"{head}{start}\n{table}\n{_END}{tail}"
