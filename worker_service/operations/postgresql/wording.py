"""Names and texts as PostgreSQL reads them."""


def quoted(name: str) -> str:
    """Quote an identifier for PostgreSQL, whatever it contains."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a text for PostgreSQL, whatever it contains."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'" if "\\" in text else f"'{escaped}'"
