"""The OpenAPI document as one HTML page to be read: no script, no asset from elsewhere, light and dark.

Pure: the document in, the page out. All that it shows is escaped; its style is named in its Content-Security-Policy by
its hash, so that nothing else is run or loaded even where something slipped through.
"""

import json
import re
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from html import escape
from typing import Any

from gateway.dialects.openapi import reason
from gateway.dialects.reference_style import STYLE

HOST = "{{host}}"  # where the page is read, put in for each reader
POLICY = (
    "default-src 'none'; style-src 'sha256-"
    + b64encode(sha256(STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_EXAMPLE = {"prompt": "a large red star", "seed": 7}
_PREFIX = "#/components/schemas/"
Schema = dict[str, Any]


def page(document: dict[str, Any]) -> str:
    """The whole page; HOST stands in it where its reader's host belongs."""
    info = document["info"]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>GenServe {escape(info['version'])}: HTTP API</title><style>{STYLE}</style></head>\n<body>"
        '<a class="skip" href="#content">Skip to the content</a>'
        f"{_navigation(document)}<main id=content><header><h1>GenServe <small>{escape(info['version'])}</small></h1>"
        f"<p>{_text(info['description'])}</p>"
        '<p>For programs: <a href="/openapi.json">/openapi.json</a> (OpenAPI 3.1).</p></header>\n'
        f"{''.join(_sections(document))}{_schemas(document)}</main></body></html>\n"
    )


def _by_tag(document: dict[str, Any]) -> Iterator[tuple[dict[str, str], list[tuple[str, str, dict[str, Any]]]]]:
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    for tag in document["tags"]:
        found = [each for each in operations if each[2]["tags"] == [tag["name"]]]
        if found:
            yield tag, found


def _navigation(document: dict[str, Any]) -> str:
    parts = []
    for tag, operations in _by_tag(document):
        items = "".join(
            f'<li><a href="#{operation["operationId"]}">{_method(method)} <code>{escape(path)}</code></a></li>'
            for method, path, operation in operations
        )
        parts.append(f"<h2>{escape(tag['name'])}</h2><ul>{items}</ul>")
    return f'<nav aria-label="Operations">{"".join(parts)}<h2><a href="#schemas">Schemas</a></h2></nav>'


def _method(method: str) -> str:
    return f'<b class="method {method.lower()}">{method}</b>'


def _sections(document: dict[str, Any]) -> Iterator[str]:
    for tag, operations in _by_tag(document):
        yield f"<section><h2>{escape(tag['name'])}</h2><p>{_text(tag['description'])}</p>"
        for method, path, operation in operations:
            yield _operation(method, path, operation, document)
        yield "</section>\n"


def _operation(method: str, path: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    parts = [
        f'<article id="{operation["operationId"]}"><h3>{_method(method)} <code>{escape(path)}</code></h3>',
        f"<p><strong>{_text(operation['summary'])}.</strong> {_text(operation.get('description', ''))}</p>",
        f"<pre tabindex=0>{escape(_curl(method, path, operation))}</pre>",
    ]
    if "parameters" in operation:
        rows = "".join(
            f"<tr><td><code>{escape(each['name'])}</code>{_required(each['required'])}<td>{each['in']}"
            f"<td>{_type(each['schema'])}<td>{_text(each['description'])}</tr>"
            for each in operation["parameters"]
        )
        parts.append(_table("Parameters", ("name", "where", "type", "meaning"), rows))
    for media, content in operation.get("requestBody", {"content": {}})["content"].items():
        schema = document["components"]["schemas"][content["schema"]["$ref"].removeprefix(_PREFIX)]
        json_title = "Body: one JSON object; null is as if the field were left out"
        title = json_title if media == "application/json" else f"Body: a form ({media})"
        parts.append(_fields(title, _without_null(schema)))
    answers = {status: each for status, each in operation["responses"].items() if int(status) < 400}
    failures = {status: each for status, each in operation["responses"].items() if int(status) >= 400}
    parts.append(_table("Answers", ("status", "body", "meaning"), "".join(map(_answer, answers.items()))))
    parts.append(f"<details><summary>Errors</summary>{_errors(failures)}</details></article>\n")
    return "".join(parts)


def _curl(method: str, path: str, operation: dict[str, Any]) -> str:
    lead = "curl -s" if method == "GET" else f"curl -s -X {method}"
    media = next(iter(operation.get("requestBody", {"content": {}})["content"]), "")
    if media == "multipart/form-data":
        file = "input_image" if path.startswith("/generate") else "image"
        return f"curl -s http://{HOST}{path} \\\n  -F prompt='{_EXAMPLE['prompt']}' -F {file}=@picture.png"
    if not media:
        return f"{lead} http://{HOST}{path}"
    return f"curl -s http://{HOST}{path} \\\n  -H 'Content-Type: application/json' \\\n  -d '{json.dumps(_EXAMPLE)}'"


def _table(title: str, heads: tuple[str, ...], rows: str) -> str:
    head = "".join(f'<th scope="col">{each}' for each in heads)
    return f'<div class="wide" tabindex=0><table><caption>{escape(title)}</caption><tr>{head}</tr>{rows}</table></div>'


def _answer(item: tuple[str, dict[str, Any]]) -> str:
    status, answer = item
    shown = "".join(
        f"{_type(content['schema'])}" if content.get("schema") else f"<code>{escape(media)}</code>"
        for media, content in answer.get("content", {}).items()
    )
    headers = [name for name in answer["headers"] if name != "X-Request-Id"]
    more = f"; headers {', '.join(f'<code>{escape(name)}</code>' for name in headers)}" if headers else ""
    name = f"{status} {escape(reason(int(status)))}"
    return f"<tr><td>{name}<td>{shown or 'none'}<td>{_text(answer['description'])}{more}</tr>"


def _errors(failures: dict[str, dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{status} {escape(reason(int(status)))}<td>{_text(each['description'])}</tr>"
        for status, each in failures.items()
    )
    return _table("Codes, and what to do", ("status", "codes"), rows)


def _fields(title: str, schema: Schema) -> str:
    required = schema.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code>{_required(name in required)}<td>{_type(field)}"
        f"<td>{_default(field)}<td>{_text(field.get('description', ''))}</tr>"
        for name, field in schema.get("properties", {}).items()
    )
    return _table(title, ("field", "type", "default", "meaning"), rows)


def _without_null(schema: Schema) -> Schema:
    """A body's fields without saying of each that it may be null."""
    fields = {
        name: {**kinds[0], **{key: value for key, value in field.items() if key != "anyOf"}}
        if len(kinds := [kind for kind in field.get("anyOf", ()) if kind != {"type": "null"}]) == 1
        else field
        for name, field in schema["properties"].items()
    }
    return {**schema, "properties": fields}


def _required(required: bool) -> str:
    return ' <em class="required">required</em>' if required else ""


def _default(field: Schema) -> str:
    if "default" not in field or field["default"] is None:
        return ""
    return f"<code>{escape(json.dumps(field['default']))}</code>"


def _schemas(document: dict[str, Any]) -> str:
    parts = [
        f'<article id="schema-{escape(name)}"><h3>{escape(name)}</h3><p>{_text(schema.get("description", ""))}</p>'
        f"{_fields('Fields', schema)}</article>\n"
        for name, schema in document["components"]["schemas"].items()
    ]
    return f'<section id="schemas"><h2>Schemas</h2>{"".join(parts)}</section>'


def _type(schema: Schema) -> str:
    """A schema in a few words, with links to those that it names."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_PREFIX)
        return f'<a href="#schema-{escape(name)}">{escape(name)}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"<code>{escape(json.dumps(each))}</code>" for each in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        return f"list of {_type(schema.get('items') or {})}"
    if kind == "object":
        return f"object of {_type(schema['additionalProperties'])}" if "additionalProperties" in schema else "object"
    if schema.get("contentEncoding") == "base64":
        return "base64"
    return f"{escape(str(kind or 'anything'))}{_bounds(schema)}"


def _bounds(schema: Schema) -> str:
    unit = " characters" if schema.get("type") == "string" else ""
    low, high = schema.get("minimum", schema.get("minLength")), schema.get("maximum", schema.get("maxLength"))
    above = schema.get("exclusiveMinimum")
    if low is not None and high is not None:
        return f", {low}–{_number(high)}{unit}"
    said = [f"above {above}"] if above is not None else [f"at least {low}{unit}"] if low is not None else []
    if high is not None:
        said.append(f"at most {_number(high)}{unit}")
    elif "pattern" in schema:
        said.append(f"<code>{escape(schema['pattern'])}</code>")
    return "".join(f", {each}" for each in said)


def _number(value: float) -> str:
    return "2⁶³−1" if value == 2**63 - 1 else str(int(value) if value == int(value) else value)


def _text(markdown: str) -> str:
    """Escaped, with `code` and lines as such: all the Markdown that there is in it."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(markdown, quote=False)).replace("\n", "<br>")
