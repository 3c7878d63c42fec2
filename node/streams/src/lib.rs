//! Remote command streams: WebSocket v4 and v5, SPDY/3.1, server side.
