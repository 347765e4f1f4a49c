"""Pages: Jinja2 with autoescape, one style sheet, no script; every answer forbids framing, caching and foreign content.

CSP level 3, WCAG 2.2. `form-action` names the app's origin, because browsers apply it to the redirect that answers a form.
"""

import hashlib
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

import jinja2
from fastapi import Request, Response

from fhir_server.security.authserver.kinds import fresh
from fhir_server.security.authserver.place import Place

HERE = Path(__file__).parent
COOKIE_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
MAX_COOKIE = 128
SAFE = {
    "Cache-Control": "no-store",
    "Pragma": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
HSTS = "max-age=31536000"
POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"


@lru_cache(1)
def _templates() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(HERE / "templates")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)


@lru_cache(1)
def style_sheet() -> tuple[str, bytes]:
    """(version, content) of the style sheet."""
    body = (HERE / "style.css").read_bytes()
    return hashlib.sha256(body).hexdigest()[:12], body


def page(place: Place, name: str, /, status: int = 200, *, returns_to: tuple[str, ...] = (), **values: object) -> Response:
    """A rendered template. returns_to: the addresses elsewhere that a form on the page may lead to."""
    body = _templates().get_template(name + ".html").render(style=style_sheet()[0], **values)
    headers = {**SAFE, "Content-Security-Policy": POLICY + "".join(map(_action, returns_to))}
    if place.secure:
        headers["Strict-Transport-Security"] = HSTS
    return Response(body, status, headers, media_type="text/html; charset=utf-8")


def _action(uri: str) -> str:
    """The part of form-action for a registered redirect address (its characters were checked at registration)."""
    parts = urlsplit(uri)
    if not parts.scheme:
        return ""
    return f" {parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") else f" {parts.scheme}:"


def see_other(location: str) -> Response:
    """303: the browser comes with GET and takes no form along (RFC 9700 section 4.12)."""
    return Response(status_code=303, headers={**SAFE, "Location": location})


def cookie_name(place: Place, name: str) -> str:
    """Over https the prefix that keeps other hosts from planting it. Such cookies go to every path, so those of a tenant carry its name."""
    name = f"{place.tenant}-{name}" if place.tenant else name
    return f"__Host-exchange-{name}" if place.secure else f"exchange-{name}"


def cookie(request: Request, place: Place, name: str) -> str:
    """The value of one of our cookies; '' if it is missing or not one that we made."""
    value = request.cookies.get(cookie_name(place, name), "")
    return value if len(value) <= MAX_COOKIE and set(value) <= COOKIE_CHARACTERS else ""


def set_cookie(response: Response, place: Place, name: str, value: str, seconds: int) -> None:
    """A cookie that scripts cannot read and other sites cannot send with a form; an empty value removes it."""
    path = "/" if place.secure else f"{place.path}/auth"
    response.set_cookie(
        cookie_name(place, name), value, max_age=seconds if value else 0, path=path, secure=place.secure, httponly=True, samesite="lax"
    )


def browser_of(request: Request, place: Place) -> str:
    """The value that binds flows to this browser; a new one where there is none."""
    return cookie(request, place, "browser") or fresh()
