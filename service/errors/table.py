"""The table of errors: code, HTTP status and sentence.

A code is stable; a reason only chooses a more precise sentence for the same code. {field} and {limit} stand
for those of the refusal.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Code:
    """Hold the HTTP status of a code, and its sentence for people.

    The errors of libraries bring sentences of their own: those here are for what has none.
    """

    status: int
    sentence: str


CODES: Mapping[str, Code] = MappingProxyType(
    {
        "bad_request": Code(400, "The request could not be read. Send multipart/form-data or JSON."),
        "unauthorized": Code(401, "Send a known API key: Authorization: Bearer, or X-API-Key."),
        "origin_refused": Code(
            403,
            "This request comes from a web page of another origin, which may not ask here: the operator can "
            "allow the origin with TOSA_VQA_CORS_ORIGINS.",
        ),
        "not_found": Code(404, "There is nothing at this address. GET / lists what there is."),
        "model_not_found": Code(404, "There is no such model here: name the one there is, or none."),
        "method_not_allowed": Code(405, "This address does not take this HTTP method."),
        "request_timeout": Code(408, "The request body took too long to arrive."),
        "body_too_large": Code(413, "The request body may have at most {limit} bytes."),
        "image_too_large": Code(413, "The image may have at most {limit} pixels."),
        "depth_too_large": Code(413, "The depth map has too many pixels."),
        "unsupported_media_type": Code(415, "Send multipart/form-data or application/json."),
        "unknown_field": Code(422, "The request has a field this server does not know."),
        "unsupported_field": Code(
            422, "{field} asks for something that this server does not do: leave it out."
        ),
        "bad_image": Code(422, "The image could not be read: send a whole JPEG, PNG or WebP."),
        "image_count": Code(422, "Send at least one image and at most {limit}."),
        "bad_depth": Code(422, "The depth could not be read."),
        "depth_truncated": Code(422, "The depth file ends early, lacks pixels or is damaged."),
        "depth_exr": Code(422, "The OpenEXR file could not be read, or not without the name of its channel."),
        "depth_npz": Code(422, "The NPZ archive could not be read, or not without the name of its array."),
        "depth_multi_page": Code(422, "The depth file holds more than one frame or page: send one."),
        "depth_dtype": Code(422, "The depth file has a number format that does not serve here."),
        "depth_colour_mapped": Code(422, "This is a colour picture of depth, not depth."),
        "depth_packed": Code(
            422, "This is depth packed into the bytes of RGB: send the depth_preset that says how."
        ),
        "depth_saturated": Code(422, "The distances of the depth map were clipped when it was saved."),
        "depth_channels": Code(422, "The depth file has several channels: send one."),
        "depth_constant": Code(422, "Every valid pixel of the depth map has the same value."),
        "depth_all_invalid": Code(422, "The depth map has no valid pixel."),
        "depth_implausible": Code(422, "The distances of the depth map cannot be meant."),
        "unknown_depth_preset": Code(422, "There is no such depth_preset."),
        "bad_depth_scale": Code(422, "depth_scale is units per metre and must lie in [1e-6, 1e6]."),
        "bad_depth_kind": Code(422, "depth_kind is metric, inverse or relative."),
        "bad_depth_invalid": Code(422, "depth_invalid is a list of at most 16 numbers."),
        "bad_depth_key": Code(422, "depth_key names an array of an NPZ or a channel of an OpenEXR file."),
        "bad_convention": Code(422, "There is no such convention of poses."),
        "bad_pose": Code(422, "The pose is not a rigid transform from camera to world."),
        "bad_intrinsics": Code(422, "The intrinsics of the camera cannot be meant."),
        "bad_timestamp": Code(422, "The timestamp cannot be meant."),
        "bad_depth_shape": Code(
            422, "depth_shape is width x height in pixels, for numbers without a header."
        ),
        "depth_unit_twice": Code(422, "A depth_preset already says scale and kind: send one of both."),
        "depth_count": Code(422, "Send no depth at all or one depth map for each image, in order."),
        "depth_shape_mismatch": Code(422, "The depth map does not show the same view as its image."),
        "depth_required": Code(
            422,
            "This method needs depth, and this server estimates none: send a depth map, or depth=none to go "
            "by row and column alone, or choose another method.",
        ),
        "estimate_off": Code(422, "This server estimates no depth: send a depth map, or depth=none."),
        "empty_question": Code(422, "The question is empty."),
        "question_too_long": Code(422, "The question may have at most {limit} characters."),
        "prompt_too_long": Code(
            422, "Question and visual tokens together are longer than the model can read: keep fewer tokens."
        ),
        "unknown_method": Code(422, "There is no such merging method."),
        "unsupported_image": Code(422, "This model cannot see an image of these proportions."),
        "unsupported_views": Code(422, "This model does not see images as these views."),
        "keep_ratio_out_of_range": Code(422, "keep_ratio is out of range."),
        "bad_merge_spec": Code(422, "The merging options do not fit together or this model."),
        "bad_option": Code(422, "An option has a value this method does not take."),
        "unknown_option": Code(422, "This method has no such option; GET /methods lists what it has."),
        "incompatible_method": Code(422, "This model needs its patch grid; this method breaks it up."),
        "bad_merge_frames": Code(422, "{field} does not go with merging across frames."),
        "episode_not_found": Code(
            404,
            "There is no such episode: it was deleted, or nobody used it for too long, or it belongs to "
            "another key. Begin a new one with POST /episodes.",
        ),
        "episode_exists": Code(409, "An episode of this id is there already: leave the id out."),
        "episode_empty": Code(409, "This episode has no frame yet: push one before you ask."),
        "episode_full": Code(
            409, "The frame does not fit the episode, whose merge_frames=none drops nothing."
        ),
        "episode_limit": Code(429, "This key has as many episodes as it may: delete one."),
        "episode_memory": Code(429, "The episodes of this key hold as much memory as they may: delete one."),
        "episode_other_model": Code(
            409, "This episode was begun with another model, whose tokens this one cannot read."
        ),
        "episode_storage": Code(
            503, "The episode could not be written to its directory; the log says why. Push the frame again."
        ),
        "bad_generation": Code(422, "The generation options are out of range."),
        "bad_schema": Code(422, "{field} is not a JSON schema that this server can enforce."),
        "bad_target": Code(422, "{field} is out of range."),
        "no_calibration": Code(
            422,
            "method=auto needs a calibration, and this server has none: its operator makes one with tosa-vqa "
            "calibrate and names it in TOSA_VQA_CALIBRATION. Name a method until then.",
        ),
        "bad_timeout": Code(422, "timeout_s is a number of seconds above 0."),
        "url_refused": Code(
            422, "This server fetches nothing: send the file itself, in a data: URI with base64."
        ),
        "bad_turns": Code(422, "The messages are not a conversation this model can read."),
        "compare_count": Code(422, "specs is a list of at least one and at most {limit} merge settings."),
        "too_costly": Code(
            422, "This request alone needs more memory than the device has: send fewer images or tokens."
        ),
        "budget_exceeded": Code(429, "The budget of this API key is spent for now. Try again later."),
        "estimate_failed": Code(
            500, "The depth estimator gave no depth for this image: send a depth map, or depth=none."
        ),
        "numerical_error": Code(500, "The model computed no finite numbers for this request."),
        "internal": Code(500, "Something went wrong on our side; the log has the request id."),
        "overloaded": Code(503, "Too many requests are waiting. Try again later."),
        "draining": Code(503, "This server is shutting down. Try again: another one answers."),
        "not_ready": Code(503, "The model is not ready yet."),
        "replica_lost": Code(
            503, "The replica that worked on this request was lost. Try again: another one answers."
        ),
        "language_down": Code(503, "The server of the language model cannot be reached. Try again."),
        "language_restarting": Code(
            503, "The server of the language model is starting or stopping. Try again."
        ),
        "language_busy": Code(503, "The server of the language model has too much to do. Try again later."),
        "language_slow": Code(504, "The server of the language model was silent for too long. Try again."),
        "language_out_of_memory": Code(503, "The server of the language model ran out of memory. Try again."),
        "language_cut": Code(
            503, "The server of the language model was lost in the middle of an answer. Ask again."
        ),
        "language_incomplete": Code(
            503, "The server of the language model gave only half an answer. Ask again."
        ),
        "language_failed": Code(502, "The server of the language model failed; the log says how. Try again."),
        "language_garbled": Code(502, "The server of the language model gave an answer that cannot be read."),
        "language_refused": Code(
            502, "The server of the language model refused the prompt; the log says why."
        ),
        "language_key_refused": Code(
            502, "The server of the language model wants another key, which the operator sets."
        ),
        "language_wrong_model": Code(
            503, "The server of the language model serves another model than this one."
        ),
        "language_wrong_weights": Code(
            503,
            "The server of the language model has other weights than this model, or computes in a coarser "
            "type; the log says by how much.",
        ),
        "language_unsupported": Code(
            422, "{field} asks for what the language servers of the operator do not do: leave it out."
        ),
        "no_estimator": Code(503, "The depth estimator could not be loaded."),
        "deadline_exceeded": Code(504, "The answer was not there in time; nothing goes on for it."),
    }
)

SENTENCES: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("bad_request", "json"): "The body is not a valid JSON object in UTF-8.",
        ("bad_request", "repeated_key"): "A name stands twice in one object of the body.",
        ("bad_request", "object"): "{field} must be an object.",
        ("bad_request", "data_uri"): "{field} must be a file as data:<media type>;base64,<data>.",
        ("bad_request", "multipart"): "The body is not valid multipart/form-data.",
        ("bad_request", "not_utf8"): "The body is not UTF-8: JSON in UTF-16 or UTF-32 is not read.",
        ("bad_request", "unnamed_gzip"): "The body is gzip: send the header Content-Encoding: gzip with it.",
        ("bad_request", "gzip"): "The body is announced as gzip, and is damaged, cut or not one gzip member.",
        ("bad_request", "base64_list"): "{field} must be a list of files, each in base64 or as a data: URI.",
        ("bad_request", "base64"): "{field} must be a file in base64, or data:<media type>;base64,<data>.",
        ("bad_request", "not_text"): "{field} must be UTF-8 text and sent at most once.",
        ("bad_request", "value"): "The value of {field} has the wrong type or is out of range.",
        ("bad_image", "format"): "This is not a JPEG, PNG or WebP file: convert it to one of them.",
        ("bad_image", "empty"): "The image file is empty.",
        ("bad_image", "animated"): "The image is animated: send one frame.",
        ("bad_image", "sixteen_bit"): "This is a 16-bit grey image: if it is a depth map, send it as depth.",
        ("body_too_large", "inflated"): "The request body may have at most {limit} bytes, inflated as well.",
        ("unsupported_media_type", "json"): "Send application/json.",
        ("unsupported_media_type", "encoding"): "{field} may be gzip, or left out.",
        ("unknown_field", "inside"): "{field} is not known here: how to merge stands inside merge, depth "
        "inside depth, the rest in messages.",
        ("unknown_field", "in_specs"): "{field} is not known here: how to merge stands inside specs.",
        ("bad_turns", "list"): "messages is a list with at least one message.",
        ("bad_turns", "role"): "{field} must be system, developer, user, assistant or tool.",
        ("bad_turns", "content"): "{field} must be a text or a list of parts.",
        ("bad_turns", "part"): "{field} must be an object of the type text, image_url or depth_url.",
        ("bad_turns", "text"): "The text of {field} must be a string that can be written as UTF-8.",
        ("bad_turns", "image_role"): "Only messages of the user hold images.",
        ("bad_turns", "call"): "{field} must be a call with the name and the arguments of a function.",
        ("bad_turns", "function_call"): "{field} is an old form of tool_calls, which is not read.",
        ("bad_turns", "last"): (
            "{field} is assistant, and the service does not continue an answer: end with a user message."
        ),
        ("prompt_too_long", "chars"): "The texts of messages may have at most {limit} characters together.",
        ("depth_count", "nothing_sent"): "depth=client promises a depth map for each image: send them.",
        ("depth_count", "not_behind_image"): "A depth_url part stands right behind its image_url.",
        ("depth_count", "not_each_image"): "Send no depth, or a depth_url part behind every image_url.",
        ("bad_schema", "object"): "{field} must be an object.",
        ("bad_schema", "missing"): "{field} is missing.",
        ("bad_schema", "name"): "{field} must be a name of 1 to {limit} letters, digits, _ and -.",
        ("bad_schema", "format_type"): "{field} must be text, json_object or json_schema.",
        ("bad_schema", "tools"): "{field} must be a list of 1 to {limit} functions with different names.",
        ("bad_schema", "tool_choice"): "{field} must be none, auto, required or a function named in tools.",
        ("language_unsupported", "words"): (
            "{field} needs the language model in this process: its tokens are whole words, which language "
            "servers cannot keep inside a schema."
        ),
        ("language_unsupported", "servers"): (
            "{field} needs a language server that keeps answers inside a schema, and none that runs does; "
            "the log says why."
        ),
        ("language_unsupported", "logprobs"): (
            "{field} cannot be given beside a schema: language servers count them among the tokens that fit "
            "it. Leave one of the two out."
        ),
        ("bad_merge_frames", "count"): "{field} has one entry for each image, of which there are {limit}.",
        ("bad_merge_frames", "model"): (
            "{field}: the visual tokens of this model are not one for each place, and cannot merge across "
            "frames. Those of LLaVA-OneVision, LLaVA and PaliGemma are."
        ),
        ("bad_merge_frames", "budget"): (
            "{field}: all frames together have more visual tokens than {limit}, and merge_frames=none drops "
            "nothing. Name another method, or send fewer frames."
        ),
        ("bad_merge_frames", "begun_with"): "{field} is said when an episode is begun: leave it out.",
        ("bad_merge_frames", "no_file"): "{field} is no part of this request: files belong to frames.",
        ("image_count", "one_frame"): "Send exactly one image: an episode takes frames one by one.",
        ("bad_pose", "frame"): (
            "poses is an object with the numbers of frames of this episode, from 0 to {limit}, as its names."
        ),
        ("bad_generation", "needs_logprobs"): "{field} needs logprobs: true.",
        ("bad_target", "needs_auto"): "{field} goes with method=auto only: send that too, or leave it out.",
        ("bad_target", "two"): "Send one target, target_ms or target_accuracy.",
        ("bad_target", "decided"): "method=auto decides {field}: leave it out, or name a method.",
        ("budget_exceeded", "at_once"): "This API key may have at most {limit} requests at a time.",
        ("compare_count", "list"): "specs is a list of objects with merge fields, as JSON.",
        ("depth_required", "option"): (
            "An option of this method needs depth, and this server estimates none: send a depth map, or "
            "depth=none to go by row and column alone, or leave the option out."
        ),
        ("bad_option", "not_name_value"): "An option is written name=value.",
        ("depth_count", "inspect_one"): "Send exactly one depth file.",
        ("image_count", "inspect_one"): "Send no image or the one that goes with the depth file.",
        ("image_count", "overlay_one"): "Send exactly one image.",
        ("not_ready", "stalled"): "The model has not been heard of for too long.",
        ("not_ready", "failed"): "The model or the depth estimator could not be loaded; the log says why.",
    }
)
