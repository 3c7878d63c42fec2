//! The controllers: pure functions from what is to a Plan.
