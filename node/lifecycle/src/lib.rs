//! The pod's state machine, pure: desired, observed and now to one step.
