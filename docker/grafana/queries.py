"""The few forms of PromQL that the dashboard is made of."""

HERE = 'instance=~"$instance"'
CHOSEN = f'{HERE}, method=~"$method"'


def rate(name: str, by: str = "", where: str = HERE) -> str:
    """Events per second, summed over instances, by a label if given."""
    return f"sum{_by(by)} (rate(tosa_vqa_{name}{{{where}}}[$__rate_interval]))"


def quantile(share: float, name: str, by: str = "", where: str = HERE) -> str:
    """A quantile of a histogram, by a label if given."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{name}_bucket', labels, where)})"


def mean(name: str, by: str = "", where: str = HERE) -> str:
    """The mean of a histogram, by a label if given."""
    return f"{rate(f'{name}_sum', by, where)} / {rate(f'{name}_count', by, where)}"


def share(part: str, whole: str) -> str:
    """One rate by another, nothing where there is no traffic."""
    return f"{part} / ({whole} > 0)"


def hits(cache: str) -> str:
    """The share of lookups that found something."""
    name = f"{cache}_lookups_total"
    return share(rate(name, where=f'{HERE}, result="hit"'), rate(name))


def gauge(name: str) -> tuple[str, str]:
    """A gauge of each instance."""
    return f"tosa_vqa_{name}{{{HERE}}}", f"{name} {{{{instance}}}}"


def vllm_mean(name: str) -> str:
    """The mean of a histogram of vLLM's own metrics, over all servers that Prometheus asks."""
    sums = (f"sum (rate(vllm:{name}_{part}[$__rate_interval]))" for part in ("sum", "count"))
    return " / ".join(sums)


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""
