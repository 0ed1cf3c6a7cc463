"""The entries of what draws: OpenAI's images, and jobs."""

from collections.abc import Iterator

from gateway.dialects import jobs as jobs_dialect
from gateway.dialects import openai
from gateway.dialects.operation import (
    ABOUT_A_JOB,
    CLIENT,
    DRAWING,
    IDEMPOTENCY_KEY,
    JOB_ID,
    SUBMITTING,
    Answer,
    Operation,
    Parameter,
)
from gateway.routes import events, images, jobs
from gateway.routes.entry import Route

EVENTS = "text/event-stream"
_STATE = "|".join(jobs_dialect.STATES)
_STATES = f"^({_STATE})(,({_STATE}))*$"
_LOCATION = {"Location": "the path of the job"}
_ETAG = {"ETag": "the SHA-256 of the file"}
_IMAGES = (
    Answer(says="the pictures", type=openai.ImagesResponse),
    Answer(says="with `stream: true`, events as the pictures form, as OpenAI names them", media=EVENTS),
)
_LINK = tuple(
    Parameter(name=name, where=where, says=says, schema={"type": "string", "minLength": 1}, required=True)
    for name, where, says in (
        ("part", "path", "of the link"),
        ("expires", "query", "of the link: when it ends, in seconds since 1970"),
        ("signature", "query", "of the link"),
    )
)


def _pictures() -> Iterator[Route]:
    yield Route(
        Operation(
            method="POST",
            path="/v1/images/generations",
            name="createImages",
            tag="Pictures",
            summary="Draw pictures and wait for them",
            says="OpenAI's images endpoint. `n` pictures are `n` jobs with seeds s … s+n−1, all admitted or none. A "
            "client that hangs up frees the GPU at the next step, unless it sent an `Idempotency-Key`.",
            body=openai.ImagesRequest,
            body_schemas=openai.SCHEMAS,
            parameters=(IDEMPOTENCY_KEY, CLIENT),
            answers=_IMAGES,
            errors=DRAWING,
        ),
        images.post_generations,
    )
    yield Route(
        Operation(
            method="POST",
            path="/v1/images/edits",
            name="editImage",
            tag="Pictures",
            summary="Draw from a picture, and with a mask only where that opens it",
            says="OpenAI's edits endpoint. What the mask's alpha channel leaves transparent is drawn anew.",
            form=openai.EditsRequest,
            body_schemas=openai.SCHEMAS,
            files={"image": True, "mask": False},
            parameters=(IDEMPOTENCY_KEY, CLIENT),
            answers=_IMAGES,
            errors=DRAWING,
        ),
        images.post_edits,
    )
    yield Route(
        Operation(
            method="GET",
            path="/v1/images/files/{job_id}/{part}",
            name="getLinkedFile",
            tag="Pictures",
            summary="The file that a link leads to",
            says="Links come with `response_format: url`. They work without a key until they expire.",
            parameters=(JOB_ID, *_LINK),
            answers=(Answer(says="the file", media="image/*", headers=_ETAG),),
            errors=(*ABOUT_A_JOB, *DRAWING, "not_finished"),
        ),
        images.get_file,
    )


_LIST = (
    Parameter(
        name="state",
        where="query",
        says="only jobs in this state, or in one of several with commas between them",
        schema={"type": "string", "pattern": _STATES},
    ),
    Parameter(
        name="limit",
        where="query",
        says="how many",
        schema={"type": "integer", "minimum": 1, "maximum": jobs_dialect.LIST_LIMIT_MAX},
    ),
    Parameter(
        name="after",
        where="query",
        says="where the page begins: as the link to it has it",
        schema={"type": "integer", "minimum": 0, "maximum": 10**jobs_dialect.NUMBER_DIGITS_MAX - 1},
    ),
)


def _jobs() -> Iterator[Route]:
    yield Route(
        Operation(
            method="POST",
            path="/v1/jobs",
            name="createJob",
            tag="Jobs",
            summary="Ask for one picture, to be fetched later",
            says="As a form it has a picture to start from, and a mask only where that opens it.",
            body=jobs_dialect.JobRequest,
            form=jobs_dialect.JobForm,
            files={"image": True, "mask": False},
            body_schemas={"prompt": openai.PROMPT_SCHEMA, "size": openai.SIZE_SCHEMA},
            parameters=(IDEMPOTENCY_KEY, CLIENT),
            answers=(
                Answer(status=202, says="the job is written down", type=jobs_dialect.Job, headers=_LOCATION),
                Answer(
                    says="the job of then: this Idempotency-Key was sent before, with the same body",
                    type=jobs_dialect.Job,
                    headers=_LOCATION,
                ),
            ),
            errors=SUBMITTING,
        ),
        jobs.post_job,
    )
    yield Route(
        Operation(
            method="GET",
            path="/v1/jobs",
            name="listJobs",
            tag="Jobs",
            summary="One's own jobs, newest first",
            parameters=_LIST,
            answers=(Answer(says="one page of them", type=jobs_dialect.JobPage),),
        ),
        jobs.get_jobs,
    )


def _job() -> Iterator[Route]:
    yield Route(
        Operation(
            method="GET",
            path="/v1/jobs/{job_id}/events",
            name="getJobEvents",
            tag="Jobs",
            summary="How a job goes on, as it goes on",
            says="Server-sent events: `job.state`, `job.step`, `job.preview`, and last `job.done`, `job.failed` or "
            "`job.cancelled`. Each has an id; `Last-Event-ID` goes on behind it.",
            parameters=(
                JOB_ID,
                Parameter(
                    name="Last-Event-ID",
                    where="header",
                    says="the id of the last event that was received",
                    schema={"type": "string", "maxLength": 64},
                ),
            ),
            answers=(
                Answer(says="events until the job's end", media=EVENTS),
                Answer(status=204, says="`Last-Event-ID` is the id of the last one: there is no more", media=""),
            ),
            errors=ABOUT_A_JOB,
        ),
        events.get_events,
    )
    yield Route(
        Operation(
            method="GET",
            path="/v1/jobs/{job_id}",
            name="getJob",
            tag="Jobs",
            summary="How a job stands, and what happened to it",
            parameters=(JOB_ID,),
            answers=(Answer(says="the job, with its history", type=jobs_dialect.Job),),
            errors=ABOUT_A_JOB,
        ),
        jobs.get_job,
    )
    yield Route(
        Operation(
            method="DELETE",
            path="/v1/jobs/{job_id}",
            name="cancelJob",
            tag="Jobs",
            summary="Cancel a job",
            says="A running one stops at its next step.",
            parameters=(JOB_ID,),
            answers=(Answer(says="the job, cancelled", type=jobs_dialect.Job),),
            errors=(*ABOUT_A_JOB, "cancelled"),
        ),
        jobs.delete_job,
    )


def _job_image() -> Iterator[Route]:
    yield Route(
        Operation(
            method="GET",
            path="/v1/jobs/{job_id}/image",
            name="getJobImage",
            tag="Jobs",
            summary="The picture's file",
            says="As often as asked, until `router.result_ttl_s` after the job's end. A job without a picture answers "
            "with its own error; one that has not ended with 409 `not_finished` and when to come back.",
            parameters=(JOB_ID,),
            answers=(
                Answer(says="the file", media="image/*", headers=_ETAG),
                Answer(status=304, says="it is the one that If-None-Match names", media="", headers=_ETAG),
            ),
            errors=(*ABOUT_A_JOB, *DRAWING, "not_finished"),
        ),
        jobs.get_image,
    )


DRAWING_ROUTES: tuple[Route, ...] = (*_pictures(), *_jobs(), *_job(), *_job_image())
