"""The SMART style that launched apps are pointed to; its address changes with its content.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html#smart-app-styling-experimental
"""

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from fhir_server.security.authserver.server import AuthServer

OURS = {  # the look of our own pages (web/auth/style.css)
    "color_background": "#f6f7f9",
    "color_error": "#a11212",
    "color_highlight": "#0b5cab",
    "color_modal_backdrop": "",
    "color_success": "#1d6b34",
    "color_text": "#1b1f24",
    "dim_border_radius": "6px",
    "dim_font_size": "16px",
    "dim_spacing_size": "16px",
    "font_family_body": "system-ui, sans-serif",
    "font_family_heading": "system-ui, sans-serif",
}
DIGITS = 12


@lru_cache(8)
def style(path: str) -> tuple[str, bytes]:
    """(version, JSON) of the configured style, or of ours. Raises ValueError if the file is not a JSON object."""
    document = json.loads(Path(path).read_text(encoding="utf-8")) if path else OURS
    if not isinstance(document, dict):
        raise ValueError("FHIR_SMART_STYLE must hold a JSON object")
    body = json.dumps(document, sort_keys=True).encode()
    return hashlib.sha256(body).hexdigest()[:DIGITS], body


def style_url(server: AuthServer) -> str:
    """Where this version of the style is."""
    return server.place.at(f"style/{style(server.settings.smart_style)[0]}.json")
