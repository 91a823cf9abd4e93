"""The two request forms of POST /vqa for the generated documentation, derived from the schemas."""

from typing import Any

from service.schemas import VqaFields


def _body(files: dict[str, Any], required: str) -> dict[str, Any]:
    schema = VqaFields.model_json_schema()
    return {
        "schema": {
            **schema,
            "properties": {**files, **schema["properties"]},
            "required": [required, "question"],
        }
    }


def _list_of(**item: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string", **item}}


VQA_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": _body(
                {"image": _list_of(format="binary"), "depth": _list_of(format="binary")}, "image"
            ),
            "application/json": _body(
                {"images": _list_of(contentEncoding="base64"), "depths": _list_of(contentEncoding="base64")},
                "images",
            ),
        },
    }
}
