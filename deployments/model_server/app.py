"""The model server's HTTP: endpoints of each use case, probes, metrics, and its description with real examples."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib import metadata
from threading import Event, Thread
from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from deployments.model_server import answers
from deployments.model_server.describe import describe, model_card
from deployments.model_server.limits import BearerTokens, Limits, Pending
from deployments.model_server.live import LiveModel, Served, follow
from deployments.model_server.metrics import LiveModels, Measured
from deployments.model_server.rows import InvalidRowsError
from deployments.model_server.threads import Threads
from shared.training.threads import cores


def create(models: Sequence[LiveModel], tokens: Sequence[str] = (), limits: Limits | None = None) -> FastAPI:
    """The server of some use cases, at `/<use_case>/…`; of a single one at `/…` too.

    models: followed from its start to its end; tokens: one of them must come with each request; none: all may ask.
    """
    pending, threads = Pending(limits or Limits()), Threads([live.name for live in models], cores())
    app = FastAPI(title="Evertune", docs_url="/docs", redoc_url=None, lifespan=_following(models))
    for live in models:
        endpoints = _endpoints(live, pending, threads)
        app.include_router(endpoints, prefix=f"/{live.name}", tags=[live.name])
        if len(models) == 1:
            app.include_router(endpoints, tags=[live.name])
    registry = CollectorRegistry()
    registry.register(LiveModels(models))
    app.include_router(_probes(models, registry))
    app.openapi = lambda: describe(app, models, bool(tokens))  # type: ignore[method-assign]
    if tokens:
        app.add_middleware(BearerTokens, tokens=tokens)
    app.add_middleware(Measured, registry=registry, paths=describe(app, models, bool(tokens))["paths"])
    return app


def _following(models: Sequence[LiveModel]) -> Any:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        stopped = Event()
        for live in models:
            Thread(target=follow, args=(live, stopped), name=f"follow {live.name}", daemon=True).start()
        yield
        stopped.set()

    return lifespan


def _endpoints(live: LiveModel, pending: Pending, threads: Threads) -> APIRouter:
    routes = APIRouter()

    async def answered(request: Request, read: answers.Read) -> Response:
        content_type = request.headers.get("content-type", answers.JSON).partition(";")[0].strip().lower()
        try:
            async with pending.body(request) as body:
                content = await threads.answer(live.name, (read, _served(live), content_type, body))
        except InvalidRowsError as err:
            raise HTTPException(422, str(err)) from None
        except answers.UnknownTypeError as err:
            raise HTTPException(415, str(err)) from None
        return Response(content, media_type=answers.JSON)

    @routes.post("/predict")
    async def predict(request: Request) -> Response:
        """Labels of rows, or a regression's values."""
        return await answered(request, answers.predict)

    @routes.post("/predict_proba")
    async def predict_proba(request: Request) -> Response:
        """A probability for each class."""
        return await answered(request, answers.predict_proba)

    @routes.post("/invocations")
    async def invocations(request: Request) -> Response:
        """What `mlflow models serve` answers, to the bodies that it reads."""
        try:
            return await answered(request, answers.invocations)
        except HTTPException as err:
            code = 400 if err.status_code == 422 else err.status_code
            said = {"error_code": "BAD_REQUEST" if code < 500 else "TEMPORARILY_UNAVAILABLE", "message": err.detail}
            return JSONResponse(said, code, err.headers)

    @routes.get("/model")
    async def model() -> dict[str, Any]:
        """The version that is live: where it comes from, its columns, an example."""
        return model_card(live.name, _served(live))

    return routes


def _served(live: LiveModel) -> Served:
    if live.served is None:
        raise HTTPException(503, f"no version is live: {live.trouble}", {"Retry-After": "2"})
    return live.served


def _state(live: LiveModel, tells_all: bool) -> dict[str, Any]:
    """Its trouble may name files and hosts."""
    version = {"version": live.served and live.served.version.version}
    return version | ({"trouble": live.trouble} if tells_all else {})


def _probes(models: Sequence[LiveModel], registry: CollectorRegistry) -> APIRouter:
    routes = APIRouter(tags=["server"])

    @routes.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @routes.get("/health", include_in_schema=False)
    @routes.get("/ping", include_in_schema=False)
    @routes.get("/readyz")
    async def readyz(request: Request) -> Response:
        """Each use case has a version that is live; which one, and, with a token, why it may not be the champion."""
        tells_all = getattr(request.state, "is_known", True)  # without tokens nobody needs one
        states = {live.name: _state(live, tells_all) for live in models}
        ready = all(live.served for live in models)
        return JSONResponse({"ready": ready, "models": states}, 200 if ready else 503)

    @routes.get("/version", include_in_schema=False)
    async def version() -> Response:
        """MLflow's, as its scoring server says."""
        return Response(metadata.version("mlflow"), media_type=answers.JSON)

    @routes.get("/metrics")
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return routes
