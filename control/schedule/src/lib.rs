//! The scheduler: pure filters, scores and one decision.
