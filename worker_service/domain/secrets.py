from collections.abc import Iterable
from urllib.parse import parse_qsl, unquote, urlsplit

MASK = "***"
_SECRET_PARAMETERS = frozenset({"password", "passwd", "sslpassword"})


def passwords_of(url: str) -> tuple[str, ...]:
    """Return the passwords that a URL carries, as written and decoded; none for a path or a broken URL."""
    if "://" not in url:
        return ()
    try:
        parts = urlsplit(url)
        found = [parts.password] if parts.password else []
    except ValueError:
        return ()
    found += [value for key, value in parse_qsl(parts.query) if key.lower() in _SECRET_PARAMETERS]
    return tuple(dict.fromkeys(form for text in found for form in (text, unquote(text)) if form))


class Redactor:
    """Masks the targets' passwords in text that leaves the process: logs, results, log lines of jobs."""

    def __init__(self, urls: Iterable[str] = ()) -> None:
        self._secrets: tuple[str, ...] = ()
        self.learn(urls)

    def learn(self, urls: Iterable[str]) -> None:
        """Mask the passwords of these URLs too."""
        found = {secret for url in urls for secret in passwords_of(url)}
        self._secrets = tuple(sorted(found.union(self._secrets), key=len, reverse=True))

    def __call__(self, text: str) -> str:
        """Return the text with every password masked."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text
