"""How models are named in public: never by a path of this machine."""


def public_id(name: str) -> str:
    """Return a model's name; of a local folder only its last part, so that no path is exposed."""
    is_path = name.startswith(("/", ".", "~")) or name.count("/") > 1
    return name.rstrip("/").rsplit("/", 1)[-1] if is_path else name
