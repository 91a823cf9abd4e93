"""HTTP: routes, bodies, responses, server-sent events and the OpenAPI description."""
