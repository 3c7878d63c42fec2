//! The API server: HTTP, verbs, watch, negotiation, authentication.
