"""Pages to try requests on: Swagger UI, served from here, so that nothing is loaded from elsewhere."""

from __future__ import annotations

from functools import cache
from html import escape
from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.errors import ServiceError

router = APIRouter(include_in_schema=False)
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""No script but ours runs, and nothing leaves for another server."""
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>tosa-vqa</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{root}/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui" data-document="{root}/openapi.json"></div>
<script src="{root}/docs/swagger-ui-bundle.js"></script>
<script src="{root}/docs/start.js"></script>
</body>
</html>
"""
START = """// Swagger UI makes up a value for every input of a form and sends it: here it stays empty.
const NothingMadeUp = () => ({
  afterLoad({fn}) {
    const sampleOf = fn.getSampleSchema;
    const isSaid = (schema) => ["default", "example", "examples"].some((name) => schema.has(name));
    this.fn.getSampleSchema = (schema, kind, ...more) => {
      if (kind !== false || isSaid(schema)) return sampleOf(schema, kind, ...more);
      return schema.get("type") === "array" ? '[""]' : "";
    };
  },
});
// It also keeps what was filled into a form when another media type is chosen, and sends that as JSON.
const OneBodyForEachType = () => ({
  statePlugins: {oas3: {wrapActions: {
    setRequestContentType: (original, {oas3Actions}) => (chosen) => {
      oas3Actions.setRequestBodyValue({value: undefined, pathMethod: chosen.pathMethod});
      return original(chosen);
    },
  }}},
});
const place = document.getElementById("swagger-ui");
SwaggerUIBundle({
  domNode: place,
  url: place.dataset.document,
  deepLinking: true,
  validatorUrl: null,
  displayRequestDuration: true,
  defaultModelsExpandDepth: -1,
  plugins: [NothingMadeUp, OneBodyForEachType],
});
"""
TYPES = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "start.js": "text/javascript",
}
"""The files of the page and their media types; the first two are Swagger UI's own, unchanged."""


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Show the pages to try requests on."""
    root = escape(request.scope.get("root_path", "").rstrip("/"))
    return Response(PAGE.format(root=root), headers=HEADERS, media_type="text/html")


@router.get("/docs/{name}")
async def asset(name: str) -> Response:
    """Return a file of the page."""
    if name not in TYPES:
        raise ServiceError("not_found")
    headers = {**HEADERS, "Cache-Control": "public, max-age=3600"}
    return Response(_content(name), headers=headers, media_type=TYPES[name])


@cache
def _content(name: str) -> bytes:
    if name == "start.js":
        return START.encode()
    return (files("service.api") / "swagger_ui" / name).read_bytes()
