"""The dialects as pure functions: bodies to jobs, results to answers."""

import base64
import json
from typing import Any

import msgspec
import pytest
from msgspec import structs

from common.errors import ERRORS, GenServeError
from common.messages import DeviceLoad, ErrorInfo, JobSpec, ModelView, Note
from common.settings import GatewaySettings, LogSettings
from gateway.dialects import errors, fleet, generate, models, openai
from gateway.dialects.picture import Drawn
from tests.common.samples import JOB, PICTURE, TIMINGS
from tests.gateway.views import DEV, MODELS, TINY, shown, status, worker

SETTINGS = GatewaySettings()


def _images(**fields: Any) -> openai.ImagesRequest:
    return openai.read_request(json.dumps({"prompt": "a fox", **fields}).encode())


def _generate(**fields: Any) -> generate.GenerateRequest:
    return generate.read_request(json.dumps({"prompt": "a fox", **fields}).encode())


def _job(**fields: Any) -> JobSpec:
    return generate.to_job(_generate(**fields), model="", client="me", random_seed=77)


def _drawn(**changes: Any) -> Drawn:
    job = structs.replace(JOB, state="done", notes=(), ended_at=JOB.created_at + 2.5, timings=TIMINGS, **changes)
    return Drawn(job=job, picture=PICTURE, data=b"\x89PNG data")


# --- OpenAI ------------------------------------------------------------------------------------


def test_everything_asked_reaches_the_jobs() -> None:
    request = _images(
        n=3, size="640x480", seed=9, num_inference_steps=12, guidance_scale=2, negative_prompt="fog",
        true_cfg_scale=3.5, priority=-2, deadline_s=12.5, model="x",
    )  # fmt: skip
    jobs = openai.to_jobs(request, model="flux1-dev", client="me", random_seed=1)
    expected = JobSpec(
        prompt="a fox", negative_prompt="fog", model="flux1-dev", width=640, height=480, steps=12, guidance_scale=2.0,
        true_cfg_scale=3.5, seed=9, priority=-2, client="me", deadline_s=12.5,
    )  # fmt: skip
    assert jobs == [expected, structs.replace(expected, seed=10), structs.replace(expected, seed=11)]


def test_the_least_body_leaves_all_to_the_model() -> None:
    assert openai.to_jobs(_images(), model="", client="", random_seed=77) == [JobSpec(prompt="a fox", seed=77)]


def test_null_is_a_field_left_out() -> None:
    names = [name for name in openai.ImagesRequest.__struct_fields__ if name != "prompt"]
    assert _images(**dict.fromkeys(names)) == _images()
    names = [name for name in generate.GenerateRequest.__struct_fields__ if name != "prompt"]
    assert _generate(**dict.fromkeys(names)) == _generate()


def test_the_last_seed_may_be_the_greatest() -> None:
    jobs = openai.to_jobs(_images(seed=2**63 - 2, n=2), model="", client="", random_seed=0)
    assert [job.seed for job in jobs] == [2**63 - 2, 2**63 - 1]


@pytest.mark.parametrize(
    "fields",
    [
        {"quality": value} for value in ("auto", "standard", "low", "medium", "high", "hd")
    ] + [
        {"background": "auto"}, {"background": "opaque"}, {"style": "vivid"}, {"style": "natural"},
        {"moderation": "auto"}, {"moderation": "low"}, {"response_format": "b64_json"}, {"output_format": "png"},
        {"stream": False}, {"partial_images": 0}, {"output_compression": 100}, {"user": "u-1"}, {"size": "auto"},
    ],
    ids=str,
)  # fmt: skip
def test_documented_values_are_taken(fields: dict[str, Any]) -> None:
    assert _images(**fields).prompt == "a fox"


def test_what_changes_nothing_is_said_so() -> None:
    response = openai.to_response(_images(quality="hd", style="vivid"), [_drawn()], created=5, link_of=str)
    assert [warning.code for warning in response.warnings] == ["quality_has_no_effect", "style_has_no_effect"]
    assert openai.to_response(_images(quality="auto"), [_drawn()], created=5, link_of=str).warnings == []


def test_the_answer_tells_how_each_picture_was_made() -> None:
    noted = Note(code="enlarged", message="drawn at 64x64")
    first, second = _drawn(), _drawn()
    first = structs.replace(first, job=structs.replace(first.job, notes=(noted,)))
    second = structs.replace(second, job=structs.replace(second.job, seed=8, notes=(noted,)), data=b"other")
    body = json.loads(msgspec.json.encode(openai.to_response(_images(n=2), [first, second], created=5, link_of=str)))
    assert body == {
        "created": 5,
        "data": [
            {
                "b64_json": base64.b64encode(data).decode(),
                "genserve": {
                    "job_id": JOB.job_id, "model": "flux1-dev", "seed": seed, "steps": 28, "guidance_scale": 3.5,
                    "size": "64x64", "drawn_size": "64x64", "device": "cuda:0", "elapsed_s": 2.5,
                    "timings": structs.asdict(TIMINGS),
                },
            }
            for seed, data in ((7, b"\x89PNG data"), (8, b"other"))
        ],
        "size": "64x64", "output_format": "png", "background": "opaque", "quality": "auto", "model": "flux1-dev",
        "warnings": [{"code": "enlarged", "message": "drawn at 64x64"}],
    }  # fmt: skip


# --- the older dialect -------------------------------------------------------------------------


def test_older_names_reach_the_job() -> None:
    asked = {"num_inference_steps": 20, "seed": 3, "cfg": 4, "height": 512, "width": 768, "priority": 5}
    assert _job(**asked) == JobSpec(
        prompt="a fox", steps=20, seed=3, guidance_scale=4.0, height=512, width=768, priority=5, client="me"
    )
    assert _job() == JobSpec(prompt="a fox", client="me", seed=77)  # a missing seed is not 42
    assert _job(deadline_s=90).deadline_s == 90.0


def test_either_name_names_the_model() -> None:
    assert _generate(model="a").model_asked == "a"
    assert _generate(model_id="b").model_asked == "b"
    assert _generate(model="c", model_id="c").model_asked == "c"
    assert _generate().model_asked == ""


@pytest.mark.parametrize(
    ("value", "save"),
    [(True, True), (False, False), ("yes", True), ("/tmp/x.png", True), ("../../etc", True), ("no", False),
     ("False", False), ("", False), (" off ", False), ("0", False)],
)  # fmt: skip
def test_save_disk_path_is_yes_or_no(value: Any, save: bool) -> None:
    job = _job(save_disk_path=value)
    assert job.save is save
    assert str(value) not in ("/tmp/x.png", "../../etc") or str(value) not in repr(job)


def test_older_answer_has_every_field_with_its_true_value() -> None:
    answer = shown(generate.to_response(_drawn()))
    older = {
        "success": True, "message": "the picture is drawn", "task_id": JOB.job_id, "model": "flux1-dev",
        "device": "cuda:0", "gpu_id": 0, "worker": "host/cuda:0", "elapsed_time": "2.50s",
        "output": b"\x89PNG data", "image_base64": b"\x89PNG data", "error": None,
    }  # fmt: skip
    assert {name: answer[name] for name in older} == older
    assert (answer["seed"], answer["num_inference_steps"], answer["cfg"]) == (7, 28, 3.5)


@pytest.mark.parametrize(("device", "gpu"), [("cuda:0", 0), ("cuda:13", 13), ("cpu", None), ("cpu:1", None)])
def test_gpu_id(device: str, gpu: int | None) -> None:
    assert generate.gpu_id(device) == gpu


def test_a_task_shows_its_state_then_its_end() -> None:
    going = shown(generate.task(JOB, None))
    assert (going["status"], going["step"], going["eta_s"], going["error"]) == ("running", 3, 4.5, None)
    assert "image_base64" not in going
    done = _drawn()
    assert shown(generate.task(done.job, done))["image_base64"] == done.data
    info = ErrorInfo(code="out_of_memory", message="no room", next_step="ask for less")
    failed = shown(generate.task(structs.replace(JOB, state="failed"), errors.JobError(JOB.job_id, info)))
    assert (failed["status"], failed["message"]) == ("failed", "no room")
    assert (failed["error"]["code"], failed["error"]["what_to_do"]) == ("out_of_memory", "ask for less")


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ERRORS)
def test_every_code_has_a_status_and_one_body(code: str) -> None:
    error = GenServeError(code, "it is so", param="p")
    body = json.loads(msgspec.json.encode(errors.ErrorBody(error=errors.facts(error))))
    assert body["error"].keys() == {"message", "type", "param", "code", "what_to_do"}
    assert body["error"]["what_to_do"] == ERRORS[code].next_step
    assert 400 <= errors.status_of(error) <= 599
    assert ("x-should-retry" in errors.headers_of(error)) is not ERRORS[code].retryable
    older = shown(generate.to_error(error))
    assert (older["success"], older["message"], older["error"]) == (False, "it is so", shown(errors.facts(error)))


def test_no_status_without_a_code() -> None:
    assert errors.STATUS.keys() == ERRORS.keys()


@pytest.mark.parametrize(("after_s", "whole_s", "ms"), [(0.0, "1", "1"), (0.2, "1", "200"), (2.01, "3", "2010")])
def test_when_to_come_back(after_s: float, whole_s: str, ms: str) -> None:
    headers = errors.headers_of(GenServeError("queue_full", "full", retry_after_s=after_s))
    assert (headers["Retry-After"], headers["retry-after-ms"]) == (whole_s, ms)


def test_a_code_of_a_newer_router_is_internal() -> None:
    assert errors.JobError("1", ErrorInfo(code="gremlins", message="?")).code == "internal"


# --- models ------------------------------------------------------------------------------------

BOTH = (*MODELS, ModelView(card=DEV, workers=0, model_path="/models/dev"))


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("", MODELS, ""),
        ("genserve-shapes", MODELS, "genserve-shapes"),
        ("gpt-image-1", MODELS, ""),
        ("gpt-image-2.5-flare-2026-09-08", MODELS, ""),
        ("dall-e-3", MODELS, ""),
        ("dall-e", MODELS, "dall-e"),
        ("flux1-dev", MODELS, ""),  # only the embedded model is there
        ("flux1-dev", (), ""),
        ("flux1-dev", BOTH, "flux1-dev"),
        ("flux1-dev", BOTH[1:], "flux1-dev"),
        ("sdxl", BOTH, "sdxl"),  # the router's refusal lists what there is
    ],
)
def test_what_a_name_means(name: str, known: tuple[ModelView, ...], meant: str) -> None:
    assert models.resolve(name, known, SETTINGS) == meant


def test_a_known_model_wins_over_an_alias() -> None:
    card = structs.replace(DEV, name="gpt-image-1")
    assert models.resolve("gpt-image-1", (ModelView(card=card, workers=1, model_path=""),), SETTINGS) == "gpt-image-1"
    longest = GatewaySettings(model_aliases={"fox-*": "a", "fox-red-*": "b", "*": "c", "fox-red-1": "d"})
    for name, meant in (("fox-1", "a"), ("fox-red-2", "b"), ("fox-red-1", "d"), ("fox", "c")):
        assert models.resolve(name, MODELS, longest) == meant
    other = GatewaySettings(model_aliases={"fox": "flux1-dev"}, embedded_model_aliases=())
    assert models.resolve("fox", BOTH, other) == "flux1-dev"
    assert models.resolve("flux1-dev", MODELS, other) == "flux1-dev"


def test_a_card_says_sizes_and_names() -> None:
    [item] = models.model_list(status(), SETTINGS).data
    facts = item.genserve
    assert (item.id, facts.default, facts.embedded, facts.workers) == ("genserve-shapes", True, True, 2)
    assert facts.default_size == facts.native_sizes[0] == "128x128"
    for size in facts.native_sizes:
        assert TINY.is_native(*openai.parse_size(size)), size
    assert len(set(facts.native_sizes)) == len(facts.native_sizes) > 5
    assert "dall-e-*" in facts.aliases
    assert (facts.edits, facts.formats) == (TINY.edits, TINY.formats)
    assert "flux1-dev" in facts.aliases
    assert models.model_item("dall-e-3", status(), SETTINGS) == item
    with pytest.raises(GenServeError, match="genserve-shapes") as raised:
        models.model_item("sdxl", status(), SETTINGS)
    assert raised.value.code == "unknown_model"


# --- the fleet ---------------------------------------------------------------------------------


def test_workers_go_by_device_where_that_is_unique() -> None:
    workers = (worker("cuda:0", "a"), worker("cuda:0", "b"), worker("cuda:1", "b"))
    assert list(fleet.keyed(status(workers))) == ["a/cuda:0", "b/cuda:0", "cuda:1"]


def test_status_counts_agree_with_the_workers() -> None:
    workers = tuple(
        worker(f"cuda:{n}", busy=n % 3 == 0, queue_size=n, state="loading" if n == 4 else "ready", done_total=n)
        for n in range(7)
    )
    view = shown(fleet.status_view(status(workers)))["concurrent_manager"]
    instances = view["model_instances"]["genserve-shapes"]
    assert view["total_instances"] == view["worker_threads"] == len(instances) == 7
    assert view["busy_instances"] == sum(each["is_busy"] for each in instances) == 3
    assert [each["queue_size"] for each in instances] == list(range(7))
    assert [each["is_loaded"] for each in instances] == [True, True, True, True, False, True, True]
    assert [each["total_generations"] for each in instances] == list(range(7))


def test_memory_is_what_the_device_says_or_nothing() -> None:
    workers = (worker("cuda:0"), worker("cuda:1", load=DeviceLoad(), state="loading"))
    load = shown(fleet.gpu_load_info(status(workers)))
    assert load["cuda:0"] == {
        "allocated_mb": 700, "cached_mb": 50, "total_mb": 1000, "free_mb": 250, "utilization_percent": 75.0,
        "available": True,
    }  # fmt: skip
    assert (load["cuda:1"]["free_mb"], load["cuda:1"]["utilization_percent"]) == (None, None)
    assert load["cuda:1"]["available"] is False


def test_config_shows_what_is_in_force() -> None:
    config = fleet.config_view(
        status(models=BOTH), SETTINGS, LogSettings(level="warning"), version="1.2", address=("127.0.0.1", 80)
    )
    view = shown(config)
    assert view["service"] == {"name": "genserve", "version": "1.2", "host": "127.0.0.1", "port": 80}
    assert view["model_management"]["model_paths"] == {"genserve-shapes": "/models/tiny", "flux1-dev": "/models/dev"}
    assert view["model_management"]["model_gpu_config"]["flux1-dev"] == []
    assert view["concurrent"] == {"max_global_queue_size": 50, "max_gpu_queue_size": 5, "task_timeout": 3600.0}
    assert view["security"] == {"max_prompt_length": 8000, "max_image_size": 2048, "max_body_bytes": 1_048_576}
    assert view["logging"]["level"] == "warning"


@pytest.mark.parametrize(
    ("states", "says"),
    [((), "no GPU daemon"), (("loading",), "cuda:0 is loading"), (("broken", "draining"), "cuda:1 is draining")],
)
def test_health_says_why_not(states: tuple[str, ...], says: str) -> None:
    workers = tuple(worker(f"cuda:{n}", state=state) for n, state in enumerate(states))
    view = shown(fleet.health_view(status(workers), ""))
    assert view["status"] == "unhealthy"
    assert says in " ".join(view["reasons"])


def test_one_ready_worker_is_health() -> None:
    workers = (worker("cuda:0", state="broken"), worker("cuda:1"))
    view = shown(fleet.health_view(status(workers), ""))
    assert (view["status"], view["reasons"], view["workers_ready"]) == ("healthy", [], 1)
    assert shown(fleet.health_view(None, "no answer"))["reasons"] == ["no answer"]


def test_a_full_disk_is_not_health() -> None:
    full = structs.replace(status((worker("cuda:0"),)), storage_full="3 MiB are free on the router's disk")
    view = shown(fleet.health_view(full, ""))
    assert view["status"] == "unhealthy"
    assert view["reasons"] == ["no new jobs are taken: 3 MiB are free on the router's disk"]


def test_a_refusal_calls_its_field_as_the_dialect_does() -> None:
    with pytest.raises(GenServeError) as caught, errors.fields_named(openai.PARAMS):
        raise GenServeError("invalid_request", "steps is 500; flux1-dev takes 1 to 100", param="steps")
    assert caught.value.param == "num_inference_steps"
    assert caught.value.message == "num_inference_steps is 500; flux1-dev takes 1 to 100"
    with pytest.raises(GenServeError) as caught, errors.fields_named(openai.PARAMS):
        raise GenServeError("invalid_request", "inputs[0]: its data is damaged", param="inputs")
    assert (caught.value.param, caught.value.message) == ("image", "inputs[0]: its data is damaged")
