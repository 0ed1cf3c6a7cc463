"""GET /: a page that says what this is and how to draw a first picture."""

from html import escape

from aiohttp import web

from gateway.context import GATEWAY

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>GenServe {version}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:3rem auto;padding:0 1rem}}
pre{{background:#f3f3f3;padding:1rem;overflow:auto}}</style>
<h1>GenServe {version}</h1>
<p>Draws pictures from prompts. A first one:</p>
<pre>curl -s http://{host}/v1/images/generations \\
  -H 'Content-Type: application/json' \\
  -d '{{"prompt": "a lighthouse at dawn", "seed": 7}}' | python3 -c '
import base64, json, sys
picture = json.load(sys.stdin)["data"][0]["b64_json"]
open("picture.png", "wb").write(base64.b64decode(picture))'</pre>
<p>What there is:</p>
<ul>{routes}</ul>
</html>
"""


async def get_home(request: web.Request) -> web.Response:
    """The page."""
    paths = {
        (route.method, route.resource.canonical)
        for route in request.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    routes = "".join(f"<li><code>{method} {escape(path)}</code></li>" for method, path in sorted(paths))
    page = _PAGE.format(version=escape(request.app[GATEWAY].version), host=escape(request.host), routes=routes)
    return web.Response(text=page, content_type="text/html")
