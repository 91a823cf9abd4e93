"""What the dashboard shows: rows of panels.

Knows the names of metrics as text only; a test compares them with what the service shows.
"""

from __future__ import annotations

from dataclasses import dataclass

from queries import CHOSEN, HERE, gauge, hits, mean, quantile, rate, share, vllm_mean


@dataclass(frozen=True)
class Panel:
    """One picture: a title, queries with their legends, and the unit of the axis."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    about: str = ""
    stacked: bool = False
    kind: str = "timeseries"
    width: int = 8


QUANTILES = (0.5, 0.95, 0.99)
ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Service",
        (
            Panel("Instances up", (('sum(up{job="tosa-vqa"})', "up"),), kind="stat", width=4),
            Panel(
                "p99, last 5 minutes",
                (("job:tosa_vqa_request_seconds:p99_5m", "p99"),),
                "s",
                kind="stat",
                width=5,
            ),
            Panel(
                "Faults of ours",
                (("job:tosa_vqa_faults:ratio_5m", "faults"),),
                "percentunit",
                kind="stat",
                width=5,
            ),
            Panel(
                "Turned away or late",
                (("job:tosa_vqa_turned_away:ratio_5m", "turned away"),),
                "percentunit",
                kind="stat",
                width=5,
            ),
            Panel(
                "Requests",
                (("job:tosa_vqa_requests:rate_5m", "requests"),),
                "reqps",
                kind="stat",
                width=5,
            ),
            Panel(
                "Requests by status",
                ((rate("requests_total", "status"), "{{status}}"),),
                "reqps",
                stacked=True,
            ),
            Panel(
                "Time of a request",
                tuple((quantile(q, "request_seconds"), f"p{100 * q:.0f}") for q in QUANTILES),
                "s",
                "From the arrival of the headers to the last byte.",
            ),
            Panel(
                "Refused and left",
                (
                    (rate("refused_total", "code"), "{{code}}"),
                    (rate("cancelled_total", "where"), "left: {{where}}"),
                ),
                "reqps",
                stacked=True,
            ),
        ),
    ),
    (
        "Stages",
        (
            Panel(
                "Where the time of an answer goes",
                (
                    (
                        f"{rate('stage_seconds_sum', 'stage', CHOSEN)} "
                        f"/ scalar({rate('answers_total', where=CHOSEN)})",
                        "{{stage}}",
                    ),
                ),
                "s",
                "Mean seconds by stage of one answer of the chosen methods.",
                stacked=True,
                width=12,
            ),
            Panel(
                "p95 of each stage",
                ((quantile(0.95, "stage_seconds", "stage", CHOSEN), "{{stage}}"),),
                "s",
                width=12,
            ),
            Panel(
                "Time to first token, p95",
                ((quantile(0.95, "time_to_first_token_seconds", "method", CHOSEN), "{{method}}"),),
                "s",
            ),
            Panel(
                "Time per token after the first",
                ((mean("time_per_token_seconds", "method", CHOSEN), "{{method}}"),),
                "s",
            ),
            Panel(
                "Waiting in the queue, p95",
                ((quantile(0.95, "stage_seconds", where=f'{CHOSEN}, stage="queue"'), "queue"),),
                "s",
            ),
        ),
    ),
    (
        "Merging",
        (
            Panel(
                "Answers by method",
                ((rate("answers_total", "method", CHOSEN), "{{method}}"),),
                "reqps",
                stacked=True,
            ),
            Panel(
                "Share of visual tokens kept",
                (
                    (
                        share(
                            rate("visual_tokens_out_total", "method", CHOSEN),
                            rate("visual_tokens_in_total", "method", CHOSEN),
                        ),
                        "{{method}}",
                    ),
                ),
                "percentunit",
            ),
            Panel(
                "Time of the vision encoder",
                ((mean("stage_seconds", "method", f'{CHOSEN}, stage="vision"'), "{{method}}"),),
                "s",
                "Mean by method: what merging saves, as it is at work.",
            ),
            Panel(
                "Tokens per second",
                (
                    (rate("visual_tokens_in_total", where=CHOSEN), "visual, before merging"),
                    (rate("visual_tokens_out_total", where=CHOSEN), "visual, after merging"),
                    (rate("prompt_tokens_total", where=CHOSEN), "read"),
                    (rate("generated_tokens_total", where=CHOSEN), "generated"),
                ),
                width=12,
            ),
            Panel(
                "Time of a request by method, p95",
                ((quantile(0.95, "request_seconds", "method", CHOSEN), "{{method}}"),),
                "s",
                width=12,
            ),
        ),
    ),
    (
        "Batches",
        (
            Panel("Waiting and running", (gauge("queue_depth"), gauge("running"), gauge("in_flight"))),
            Panel(
                "Size of a batch",
                (
                    (mean("batch_rows"), "questions"),
                    (mean("batch_images"), "images"),
                    gauge("batch_limit"),
                ),
            ),
            Panel(
                "Time of a batch",
                ((quantile(0.5, "batch_seconds"), "p50"), (quantile(0.95, "batch_seconds"), "p95")),
                "s",
            ),
            Panel(
                "Batches by outcome",
                ((rate("batches_total", "outcome"), "{{outcome}}"),),
                "ops",
                stacked=True,
                width=12,
            ),
            Panel("Silence of the model thread", (gauge("heartbeat_age_seconds"),), "s", width=12),
        ),
    ),
    (
        "Language servers (empty where the language model is in the service)",
        (
            Panel(
                "Answers of language servers",
                ((rate("language_answers_total", "outcome"), "{{outcome}}"),),
                "ops",
                "As the service sees them; what failed may have been answered by another server.",
                stacked=True,
            ),
            Panel(
                "Prompt tokens that the servers remembered",
                (
                    (
                        share(
                            rate("language_prompt_tokens_total", where=f'{HERE}, result="hit"'),
                            rate("language_prompt_tokens_total"),
                        ),
                        "share",
                    ),
                ),
                "percentunit",
            ),
            Panel(
                "Servers that answer, and prompts there",
                (gauge("language_servers_up"), gauge("language_running")),
            ),
            Panel(
                "Time in vLLM, by its own clock",
                (
                    (vllm_mean("request_queue_time_seconds"), "queue"),
                    (vllm_mean("request_prefill_time_seconds"), "prefill"),
                    (vllm_mean("request_decode_time_seconds"), "generate"),
                ),
                "s",
                "Mean of one prompt, if Prometheus asks the servers too.",
                stacked=True,
                width=12,
            ),
            Panel(
                "Prompts in vLLM",
                (
                    ("sum (vllm:num_requests_running)", "running"),
                    ("sum (vllm:num_requests_waiting)", "waiting"),
                ),
                width=12,
            ),
        ),
    ),
    (
        "Memory of frames and of depth",
        (
            Panel(
                "Found",
                ((hits("frame_cache"), "encoded frames"), (hits("estimate_cache"), "estimated depth")),
                "percentunit",
            ),
            Panel("Encoded frames, bytes", (gauge("frame_cache_bytes"),), "bytes"),
            Panel("Encoded frames", (gauge("frame_cache_entries"),)),
        ),
    ),
    (
        "Process",
        (
            Panel(
                "Resident memory", ((f"process_resident_memory_bytes{{{HERE}}}", "{{instance}}"),), "bytes"
            ),
            Panel(
                "Processor",
                ((f"rate(process_cpu_seconds_total{{{HERE}}}[$__rate_interval])", "{{instance}}"),),
                "percentunit",
                "1 is one core.",
            ),
            Panel(
                "Open files, and what cannot be seen",
                (
                    (f"process_open_fds{{{HERE}}}", "files {{instance}}"),
                    (rate("observation_failures_total", "part"), "not written: {{part}}"),
                    gauge("unreadable_gauges"),
                ),
            ),
        ),
    ),
    (
        "API keys",
        (
            Panel("Requests", ((rate("key_requests_total", "key"), "{{key}}"),), "reqps", width=12),
            Panel(
                "Units per minute",
                ((f"60 * {rate('key_units_total', 'key')}", "{{key}}"),),
                about="A unit is a megapixel decoded, or 100 tokens read or generated.",
                width=12,
            ),
        ),
    ),
)
