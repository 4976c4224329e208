"""Can a server be reached? Asked before every download: tensorflow-datasets alone needs 204 s to find out."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request

from prl_keras.errors import InputError

DEADLINE = 8.0  # seconds, name resolution and redirects included


def require_reachable(url: str, what: str, instead: str) -> None:
    """Raise InputError unless `url` answers in time. The usual proxy variables are respected."""
    outcome = ["no answer"]
    # urllib cannot limit the time of name resolution; a daemon thread can be left behind.
    thread = threading.Thread(target=lambda: outcome.__setitem__(0, _probe(url)), daemon=True)
    thread.start()
    thread.join(DEADLINE)
    if outcome[0]:
        raise InputError(f"cannot download {what}: {url} is out of reach ({outcome[0]}); {instead}")


def _probe(url: str) -> str:
    """Why the URL cannot be reached, or an empty string."""
    try:
        # A new opener: urlopen keeps the proxies of its first call.
        opener = urllib.request.build_opener()
        with opener.open(urllib.request.Request(url, method="HEAD"), timeout=DEADLINE):
            return ""
    except urllib.error.HTTPError as error:
        # Many servers refuse HEAD; a proxy that asks for a password or finds no server is no connection.
        return f"HTTP {error.code}" if error.code == 407 or error.code >= 500 else ""
    except urllib.error.URLError as error:
        return str(error.reason).splitlines()[0]
    except Exception as error:  # malformed answers raise many types
        return f"{type(error).__name__}: {error}".splitlines()[0]
