"""The operations of the API, by the names that users of the official client know. Thin: build, send, decode."""
