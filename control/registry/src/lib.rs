//! Every kind as a row, and the one write pipeline.
