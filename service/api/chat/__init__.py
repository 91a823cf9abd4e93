"""The shapes of OpenAI's chat completions: what comes in as a question, and how an answer goes out."""
