"""Names and tags as the server reads them."""

import re


def quoted(name: str) -> str:
    """Quote an identifier for the server, whatever it contains."""
    return "`" + name.replace("`", "``") + "`"


def tag(child_job_id: str, attempt: int) -> str:
    """Name an attempt as its connections and statements carry it; nothing in it can end a comment."""
    return f"overhaul:{re.sub('[^A-Za-z0-9-]', '', child_job_id) or '-'}:{attempt}"
