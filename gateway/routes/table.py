"""Every path that this gateway serves, one entry each: what documents it, and what answers it.

There is no other way to add a route, so none is left out of /openapi.json and /docs.
"""

from collections.abc import Iterator

from msgspec import structs

from gateway.access import is_open
from gateway.dialects import fleet_views as views
from gateway.dialects import generate as older
from gateway.dialects import models as models_dialect
from gateway.dialects import openai
from gateway.dialects.operation import (
    ABOUT_A_JOB,
    CLIENT,
    DRAWING,
    IDEMPOTENCY_KEY,
    JOB_ID,
    Answer,
    Operation,
    Parameter,
)
from gateway.routes import docs, fleet, generate, health, home, metrics, models
from gateway.routes.entry import Handler, Route
from gateway.routes.table_jobs import DRAWING_ROUTES

HTML, PROMETHEUS = "text/html", "text/plain"
PAGE_MEDIA = ("text/css", "text/javascript", "image/svg+xml")
OLDER = "Older dialect"


def _models() -> Iterator[Route]:
    yield Route(
        Operation(
            method="GET",
            path="/v1/models",
            name="listModels",
            tag="Models",
            summary="Every model that was ever served here",
            answers=(Answer(says="the models, in OpenAI's list shape", type=models_dialect.ModelList),),
        ),
        models.get_models,
    )
    yield Route(
        Operation(
            method="GET",
            path="/v1/models/{name:.+}",
            name="getModel",
            tag="Models",
            summary="One model, by its name or an alias",
            parameters=(
                Parameter(
                    name="name",
                    where="path",
                    says="as GET /v1/models lists it, or an alias",
                    schema={"type": "string", "minLength": 1},
                    required=True,
                ),
            ),
            answers=(Answer(says="the model", type=models_dialect.ModelItem),),
            errors=("unknown_model",),
        ),
        models.get_model,
    )


def _get(path: str, name: str, tag: str, summary: str, *answers: Answer, by: Handler) -> Route:
    return Route(Operation(method="GET", path=path, name=name, tag=tag, summary=summary, answers=answers), by)


def _fleet() -> Iterator[Route]:
    def health_at(path: str, name: str) -> Route:
        well = Answer(says="the router answers and a GPU is ready", type=views.Health)
        unwell = Answer(status=503, says="not so; `reasons` say why", type=views.Health)
        return _get(path, name, "Fleet", "Can pictures be drawn now?", well, unwell, by=health.get_health)

    yield _get(
        "/v1/status",
        "getStatus",
        "Fleet",
        "The whole service: every GPU, every model, counts and limits",
        Answer(says="what the router knows", type=views.ServiceView),
        by=fleet.get_service,
    )
    yield health_at("/health", "getHealth")
    yield health_at("/health/ready", "getReady")
    live = Answer(says="this process answers", type=views.Live)
    yield _get("/health/live", "getLive", "Fleet", "Does the gateway itself answer?", live, by=health.get_live)
    text = Answer(says="metrics in Prometheus's text format, or OpenMetrics where Accept asks for it", media=PROMETHEUS)
    yield _get("/metrics", "getMetrics", "Fleet", "Metrics for Prometheus", text, by=metrics.get_metrics)


def _older() -> Iterator[Route]:
    yield Route(
        Operation(
            method="POST",
            path="/generate",
            name="generate",
            tag=OLDER,
            summary="Draw one picture and wait for it",
            body=older.GenerateRequest,
            body_schemas={"prompt": openai.PROMPT_SCHEMA},
            parameters=(IDEMPOTENCY_KEY, CLIENT),
            answers=(Answer(says="the picture", type=older.Generated),),
            errors=DRAWING,
            error_type=older.NotGenerated,
        ),
        generate.post_generate,
    )
    yield Route(
        Operation(
            method="POST",
            path="/generate/upload",
            name="generateUpload",
            tag=OLDER,
            summary="Draw one picture from another and wait for it",
            form=older.UploadRequest,
            body_schemas={"prompt": openai.PROMPT_SCHEMA, "mode": {"enum": ["", *older.MODES]}},
            files=dict.fromkeys(older.FILES, False),
            parameters=(IDEMPOTENCY_KEY, CLIENT),
            answers=(Answer(says="the picture", type=older.Generated),),
            errors=DRAWING,
            error_type=older.NotGenerated,
        ),
        generate.post_upload,
    )
    yield Route(
        Operation(
            method="GET",
            path="/task/{task_id}",
            name="getTask",
            tag=OLDER,
            summary="How a job stands; its picture once it is drawn",
            parameters=(structs.replace(JOB_ID, name="task_id"),),
            answers=(Answer(says="the job; where it has failed, `success` is false", type=older.Task),),
            errors=ABOUT_A_JOB,
        ),
        generate.get_task,
    )
    for path, name, summary, type_, handler in (
        ("/status", "getOlderStatus", "Queues, instances, counts, devices and their memory", views.OlderStatus,
         fleet.get_status),
        ("/gpu/load", "getGpuLoad", "Each device's memory", views.GpuLoad, fleet.get_gpu_load),
        ("/config", "getConfig", "The bounds and settings in force", views.Config, fleet.get_config),
        ("/models", "getOlderModels", "Every known model's card, folder and devices", views.OlderModels,
         fleet.get_models),
        ("/devices", "getDevices", "Every device of the fleet", views.Devices, fleet.get_devices),
    ):  # fmt: skip
        yield _get(path, name, OLDER, summary, Answer(says="as it is", type=type_), by=handler)


def _pages() -> Iterator[Route]:
    page = Answer(says="a page", media=HTML)
    yield _get("/", "getHome", "Pages", "A page that says what this is", page, by=home.get_home)
    yield Route(
        Operation(
            method="GET",
            path="/page/{digest}/{name}",
            name="getPageFile",
            tag="Pages",
            summary="A file of the page at /",
            parameters=tuple(
                Parameter(name=name, where="path", says=says, schema={"type": "string", "minLength": 1}, required=True)
                for name, says in (("digest", "of the page as a whole"), ("name", "of the file"))
            ),
            answers=tuple(Answer(says="the file", media=media) for media in PAGE_MEDIA),
            errors=("not_found",),
        ),
        home.get_asset,
    )
    yield _get("/docs", "getDocs", "Pages", "This reference, to be read", page, by=docs.get_docs)
    schema = Answer(says="an OpenAPI 3.1 document")
    yield _get("/openapi.json", "getOpenApi", "Pages", "This reference, for programs", schema, by=docs.get_openapi)


def _as_kept(route: Route) -> Route:
    """With what gateway/access.py keeps open told of it."""
    return structs.replace(route, operation=structs.replace(route.operation, open=is_open(route.operation.path)))


ROUTES: tuple[Route, ...] = tuple(
    _as_kept(route) for route in (*DRAWING_ROUTES, *_models(), *_fleet(), *_older(), *_pages())
)
