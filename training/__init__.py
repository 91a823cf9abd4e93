"""How the embedded checkpoint room-tiny was made: three resumable stages, reproducible from their seeds."""
