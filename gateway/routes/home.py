"""GET / and the files of the page: a browser gets the page, anything else a list of what there is."""

from html import escape

from aiohttp import web

from common.errors import GenServeError
from gateway.assets import Asset, of_page
from gateway.context import GATEWAY

KEPT_S = 365 * 24 * 3600  # an address that holds the digest never means anything else
# Only what comes from here, and no markup made from text: an injected script or style is not run.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_SAFE = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "X-Frame-Options": "DENY",
}
_LIST = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>GenServe {version}</title>
<h1>GenServe {version}</h1>
<p>Draws pictures from prompts; a browser gets a studio here. A first one:</p>
<pre>curl -s http://{host}/v1/images/generations \\
  -H 'Content-Type: application/json' \\
  -d '{{"prompt": "a large red star", "seed": 7}}' | python3 -c '
import base64, json, sys
picture = json.load(sys.stdin)["data"][0]["b64_json"]
open("picture.png", "wb").write(base64.b64decode(picture))'</pre>
<p>What there is:</p>
<ul>{routes}</ul>
</html>
"""


async def get_home(request: web.Request) -> web.Response:
    """The page for whoever asks for HTML by name, as browsers do; else the list."""
    if "text/html" in request.headers.get("Accept", ""):
        return _answer(request, of_page().index, {"Cache-Control": "no-cache", "Vary": "Accept, Accept-Encoding"})
    paths = {
        (route.method, route.resource.canonical)
        for route in request.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    routes = "".join(f"<li><code>{method} {escape(path)}</code></li>" for method, path in sorted(paths))
    page = _LIST.format(version=escape(request.app[GATEWAY].version), host=escape(request.host), routes=routes)
    return web.Response(text=page, content_type="text/html", headers={**_SAFE, "Vary": "Accept"})


async def get_asset(request: web.Request) -> web.Response:
    """A file of the page; kept for good by who asks for it where this version has it."""
    assets, name = of_page(), request.match_info["name"]
    asset = assets.files.get(name)
    if asset is None:
        raise GenServeError("not_found", f"the page has no file {name[:40]!r}")
    current = request.match_info["digest"] == assets.digest
    kept = f"public, max-age={KEPT_S}, immutable" if current else "no-store"  # of an older page that is still open
    return _answer(request, asset, {"Cache-Control": kept, "Vary": "Accept-Encoding"})


def _answer(request: web.Request, asset: Asset, headers: dict[str, str]) -> web.Response:
    headers = {**_SAFE, **headers, "ETag": f'"{asset.tag}"'}
    if any(tag.value in (asset.tag, "*") for tag in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return web.Response(body=asset.packed, content_type=asset.type, charset="utf-8", headers=headers)
    return web.Response(body=asset.data, content_type=asset.type, charset="utf-8", headers=headers)
