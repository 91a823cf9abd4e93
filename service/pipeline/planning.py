"""From the fields of a request to a plan of merging; a refusal says which choices and limits there are."""

from __future__ import annotations

from service.errors import ApiError
from service.request.schemas import VqaFields
from service.translation import to_api_error
from tosa import KERNELS, METHODS, EncoderShape, MergePlan, MergeSpec, PlanError, make_plan
from tosa.methods.options import Setting, settings_of


def plan_request(fields: VqaFields, has_depth: bool, shape: EncoderShape) -> MergePlan:
    """Plan the merging of one request. Raises ApiError."""
    spec = fields.merge_spec(has_depth)
    try:
        return make_plan(spec, shape)
    except PlanError as error:
        raise _explained(error, spec, shape) from None


def _explained(error: PlanError, spec: MergeSpec, shape: EncoderShape) -> ApiError:
    refusal = to_api_error(error)
    match error.code:
        case "unknown_option":
            refusal.choices = tuple(_settings(spec)) or None
        case "bad_option":
            return _bad_option(_culprit(spec))
        case "bad_layers":
            refusal.limit = shape.num_layers - 1
        case "bad_spatial_kernel":
            refusal.choices = KERNELS
        case "incompatible":
            refusal.choices = tuple(name for name, method in METHODS.items() if method.keeps_grid)
    return refusal


def _culprit(spec: MergeSpec) -> Setting | None:
    """Find the option whose value is refused also alone."""
    build, settings = METHODS[spec.method].options, _settings(spec)
    assert build is not None, "only a method with options refuses their values"
    for name, value in dict(spec.options).items():
        try:
            build(**{name: value})
        except (ValueError, TypeError):
            return settings[name]
    return None


def _bad_option(setting: Setting | None) -> ApiError:
    hint = "" if setting is None else f"{setting.name}: {setting.doc.rstrip('.')}."
    return ApiError("bad_option", reason="bad_option", field="options", hint=hint)


def _settings(spec: MergeSpec) -> dict[str, Setting]:
    return {setting.name: setting for setting in settings_of(METHODS[spec.method].options)}
