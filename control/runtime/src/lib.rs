//! Runs the controllers and the scheduler: cache, queue, back-off, driver, leadership.
