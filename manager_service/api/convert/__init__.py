"""Between the wire and the domain: total converters, one module per group of messages."""
