"""Names as SQLite reads them."""


def quoted(name: str) -> str:
    """Quote an identifier for SQLite, whatever it contains."""
    return '"' + name.replace('"', '""') + '"'
