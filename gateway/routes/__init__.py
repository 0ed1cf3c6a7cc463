"""HTTP routes, one file a topic. Each reads a request, asks a dialect and the link, and answers."""

from aiohttp import web

from gateway.routes import fleet, generate, health, home, images, jobs, metrics, models


def add_all(router: web.UrlDispatcher) -> None:
    """Every path that this gateway serves."""
    router.add_get("/", home.get_home)
    router.add_post("/v1/images/generations", images.post_generations)
    router.add_post("/v1/jobs", jobs.post_job)
    router.add_get("/v1/jobs/{job_id}", jobs.get_job)
    router.add_delete("/v1/jobs/{job_id}", jobs.delete_job)
    router.add_get("/v1/jobs/{job_id}/image", jobs.get_image)
    router.add_get("/v1/status", fleet.get_service)
    router.add_get("/v1/models", models.get_models)
    router.add_get("/v1/models/{name:.+}", models.get_model)
    router.add_post("/generate", generate.post_generate)
    router.add_get("/task/{task_id}", generate.get_task)
    router.add_get("/status", fleet.get_status)
    router.add_get("/gpu/load", fleet.get_gpu_load)
    router.add_get("/config", fleet.get_config)
    router.add_get("/models", fleet.get_models)
    router.add_get("/devices", fleet.get_devices)
    router.add_get("/health", health.get_health)
    router.add_get("/health/ready", health.get_health)
    router.add_get("/health/live", health.get_live)
    router.add_get("/metrics", metrics.get_metrics)
