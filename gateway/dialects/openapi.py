"""The OpenAPI 3.1 document, made from the operations and the structs that the gateway really reads and writes.

Pure. Schemas are msgspec's own of those structs. What reading a body holds beyond its struct's types is added here: no
field that it does not have, and null where a field may be left out.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from common.errors import ERRORS
from gateway.dialects.errors import STATUS
from gateway.dialects.glossary import MEANINGS
from gateway.dialects.operation import EVERYWHERE, JSON, OF_KEYS, WITH_BODY, Answer, Operation, Parameter

REF = "#/components/schemas/{name}"
RETRYABLE = frozenset({408, 409, 429, 503, 507})  # whose answers may say when to come back
_SAYS = {
    408: "the body did not arrive in time (`gateway.body_timeout_s`)",
    413: "the body is longer than `gateway.body_bytes_max`",
    415: "the body is not what it has to be: plain JSON in UTF-8, not compressed",
}
_INTRODUCTION = (
    'Pictures from prompts. Every error has one body, `{"error": {"message", "type", "param", "code", "what_to_do"}}`: '
    "`param` names the field, `code` is one of a fixed list, `what_to_do` is the next step. Every answer has an "
    "`X-Request-Id`, which the log has as well. Where a retry helps, `Retry-After` (seconds) and `retry-after-ms` say "
    "when; where it does not, `x-should-retry` is `false`."
)
_TAGS = {
    "Pictures": "Ask for pictures and wait for them.",
    "Jobs": "Ask for a picture now, and fetch it later: no connection stays open.",
    "Models": "What can draw.",
    "Fleet": "How the service stands: GPUs, queues, health, metrics.",
    "Older dialect": "The endpoints of earlier releases, kept as they were.",
    "Pages": "For people.",
}


def public_path(path: str) -> str:
    """'/v1/models/{name:.+}' as OpenAPI writes it: '/v1/models/{name}'."""
    return re.sub(r"\{(\w+):[^{}]*\}", r"{\1}", path)


def document(operations: Sequence[Operation], *, version: str) -> dict[str, Any]:
    """The whole document, ready to be encoded."""
    types = list(dict.fromkeys(_types(operations)))
    references, schemas = msgspec.json.schema_components(types, ref_template=REF)
    reference_of = dict(zip(types, references, strict=True))
    for name, schema in schemas.items():
        _explain(name, schema)
    for operation in operations:
        for type_ in (operation.body, operation.form):
            if type_ is not None:
                _as_read(schemas[type_.__name__], operation.body_schemas)
        if operation.form is not None:
            _with_files(schemas[operation.form.__name__], operation.files)
    paths: dict[str, Any] = {}
    for operation in operations:
        shown = _operation(operation, reference_of)
        paths.setdefault(public_path(operation.path), {})[operation.method.lower()] = shown
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "GenServe",
            "version": version,
            "description": _INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {"schemas": dict(sorted(schemas.items())), "securitySchemes": _SCHEMES},
        "security": [{}, *({name: []} for name in _SCHEMES)],  # asked for where others can reach the service
    }


def _types(operations: Iterable[Operation]) -> Iterable[Any]:
    for operation in operations:
        yield operation.error_type
        yield from (answer.type for answer in operation.answers if answer.type is not None)
        yield from (type_ for type_ in (operation.body, operation.form) if type_ is not None)


def _explain(name: str, schema: dict[str, Any]) -> None:
    for field, told in schema.get("properties", {}).items():
        meaning = MEANINGS.get(f"{name}.{field}") or MEANINGS.get(field)
        if meaning is not None:
            told.setdefault("description", meaning)


def _as_read(schema: dict[str, Any], more: Mapping[str, dict[str, Any]]) -> None:
    """What body.read makes of a struct, and what its dialect holds beyond that."""
    schema["additionalProperties"] = False
    required = schema.get("required", ())
    for name, field in schema["properties"].items():
        told = {key: field.pop(key) for key in ("default", "description") if key in field}
        kinds = [kind for kind in field.get("anyOf", [field]) if kind != {"type": "null"}]
        kinds[0].update(more.get(name, {}))
        schema["properties"][name] = (
            {**kinds[0], **told} if name in required else {"anyOf": [*kinds, {"type": "null"}], **told}
        )


def _with_files(schema: dict[str, Any], files: Mapping[str, bool]) -> None:
    """A form's files beside its text fields, in which null cannot be said."""
    for name, field in schema["properties"].items():
        kinds = [kind for kind in field.get("anyOf", [field]) if kind != {"type": "null"}]
        if len(kinds) == 1 and "anyOf" in field:
            del field["anyOf"]
            schema["properties"][name] = {**kinds[0], **field}
    says = "a PNG, JPEG or WebP file"
    schema["properties"] |= {
        name: {"type": "string", "contentMediaType": "application/octet-stream", "description": says} for name in files
    }
    schema["required"] = [*schema.get("required", ()), *(name for name, required in files.items() if required)]


def _operation(operation: Operation, reference_of: dict[Any, Any]) -> dict[str, Any]:
    responses: dict[int, Any] = {}
    for answer in operation.answers:
        _add(responses, answer.status, _answer(answer, reference_of))
    for status, codes in sorted(_codes_by_status(operation).items()):
        _add(responses, status, _failure(status, codes, reference_of[operation.error_type]))
    shown: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        **({"description": operation.says} if operation.says else {}),
        "responses": {str(status): response for status, response in sorted(responses.items())},
    }
    if operation.open:
        shown["security"] = []
    if operation.parameters:
        shown["parameters"] = [_parameter(each) for each in operation.parameters]
    bodies = {JSON: operation.body, "multipart/form-data": operation.form}
    content = {media: {"schema": reference_of[type_]} for media, type_ in bodies.items() if type_ is not None}
    if content:
        shown["requestBody"] = {"required": True, "content": content}
    return shown


def _codes_by_status(operation: Operation) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for code in dict.fromkeys((*EVERYWHERE, *operation.errors)):
        if operation.open and code in OF_KEYS:
            continue
        found.setdefault(STATUS[code], []).append(code)
    for status in WITH_BODY if operation.body or operation.form else ():
        found.setdefault(status, [])
    return found


def _answer(answer: Answer, reference_of: dict[Any, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {"description": answer.says, "headers": _headers({**answer.headers, **_REQUEST_ID})}
    if answer.type is not None:
        shown["content"] = {JSON: {"schema": reference_of[answer.type]}}
    elif answer.media:
        shown["content"] = {answer.media: {}}
    return shown


_SCHEMES = {
    "key": {"type": "http", "scheme": "bearer", "description": "a key of `genserve keys add-http`"},
    "key_header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "the same"},
}
_REQUEST_ID = {"X-Request-Id": "the request's name, which the log has as well"}
_NEVER = {"x-should-retry": "false where the same request will never succeed"}
_RETRY = {"Retry-After": "whole seconds after which a retry may help", "retry-after-ms": "the same in milliseconds"}


def _failure(status: int, codes: Sequence[str], reference: Any) -> dict[str, Any]:
    lines = [f"`{code}`: {ERRORS[code].next_step}" for code in codes] or [_SAYS[status]]
    never = _NEVER if any(not ERRORS[code].retryable for code in codes) else {}
    headers = {**(_RETRY if status in RETRYABLE else {}), **never, **_REQUEST_ID}
    return {
        "description": "\n".join(lines),
        "headers": _headers(headers),
        "content": {JSON: {"schema": reference}},
    }


def _add(responses: dict[int, Any], status: int, response: dict[str, Any]) -> None:
    """An answer and an error may share a status, as health's 503 does."""
    if status not in responses:
        responses[status] = response
        return
    first = responses[status]
    if first["content"].keys() != response["content"].keys():  # of two media
        first["description"] += "\n" + response["description"]
        first["content"] |= response["content"]
        return
    schemas = [each["content"][JSON]["schema"] for each in (first, response)]
    first["description"] += "\n" + response["description"]
    first["content"][JSON]["schema"] = {"anyOf": schemas}


def _headers(headers: dict[str, str]) -> dict[str, Any]:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.required,
        "description": parameter.says,
        "schema": parameter.schema,
    }


def reason(status: int) -> str:
    """HTTP's own words for a status."""
    return HTTPStatus(status).phrase
