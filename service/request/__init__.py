"""What a client may ask: schemas, coercion of text, validation."""
