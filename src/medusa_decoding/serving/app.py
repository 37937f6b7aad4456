"""The routes: OpenAI's, health, metrics and the page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from medusa_decoding.serving import errors
from medusa_decoding.serving.chat import chat_completion
from medusa_decoding.serving.completions import completion
from medusa_decoding.serving.config import ServeConfig
from medusa_decoding.serving.description import describe
from medusa_decoding.serving.errors import ApiError
from medusa_decoding.serving.grammar import Grammars
from medusa_decoding.serving.jobs import Jobs
from medusa_decoding.serving.limits import ApiKey, BodyLimit, LastResort
from medusa_decoding.serving.metrics import CONTENT_TYPE, Metrics
from medusa_decoding.serving.schema import ChatRequest, CompletionRequest
from medusa_decoding.serving.served import Served
from medusa_decoding.serving.service import Service

_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The request is wrong, or asks for what is not supported."},
    401: {"description": "The API key is missing or wrong."},
    404: {"description": "There is no such model."},
    413: {"description": "The body is too large."},
    429: {"description": "Too many requests wait; Retry-After says when to try again."},
    503: {"description": "The server is shutting down."},
}
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {}, "text/event-stream": {}}, "description": "The answer."}
}


def create_app(served: Served, jobs: Jobs, metrics: Metrics, config: ServeConfig) -> FastAPI:
    """The server for one model. `jobs` is drained when the app shuts down."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await jobs.drain()

    app = FastAPI(title="medusa", lifespan=lifespan, docs_url=None, redoc_url=None)
    service = Service(served, jobs, Grammars(served), config.max_sequences + config.max_queue)
    errors.install(app)
    # The last one added stands first.
    app.add_middleware(BodyLimit, most=config.max_body)
    if config.api_key is not None:
        app.add_middleware(ApiKey, key=config.api_key)
    app.add_middleware(LastResort)
    _add_completions(app, service)
    _add_models(app, served)
    _add_surroundings(app, metrics)
    # FastAPI keeps the document that it makes.
    document = app.openapi
    described = cache(lambda: describe(document(), served, service.most_choices))
    app.openapi = described  # type: ignore[method-assign]
    return app


def _add_completions(app: FastAPI, service: Service) -> None:
    responses = _ANSWER | _REFUSALS

    @app.post("/v1/chat/completions", response_class=Response, responses=responses)
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        """Continue a conversation."""
        return await chat_completion(service, body, request)

    @app.post("/v1/completions", response_class=Response, responses=responses)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """Continue texts."""
        return await completion(service, body, request)


def _add_models(app: FastAPI, served: Served) -> None:
    refusals: dict[int | str, dict[str, Any]] = {status: _REFUSALS[status] for status in (401, 404)}

    @app.get("/v1/models", responses={401: _REFUSALS[401]})
    async def models() -> dict[str, Any]:
        """The one model."""
        return {"object": "list", "data": [served.description()]}

    # Names of models have slashes.
    @app.get("/v1/models/{name:path}", responses=refusals)
    async def model(name: str) -> dict[str, Any]:
        """The model of this name."""
        served.check_name(name)
        return served.description()


def _add_surroundings(app: FastAPI, metrics: Metrics) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server answers."""
        return {"status": "ok"}

    @app.get("/metrics", response_class=Response, responses={401: _REFUSALS[401]})
    async def exposition() -> Response:
        """Metrics in Prometheus' text form."""
        return Response(metrics.exposition(), media_type=CONTENT_TYPE)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        """The chat page."""
        found = files("medusa_decoding.serving").joinpath("page", "index.html")
        if not found.is_file():
            raise ApiError(404, "this server has no page")
        return HTMLResponse(found.read_text(encoding="utf-8"))
