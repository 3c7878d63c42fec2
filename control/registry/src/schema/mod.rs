//! The types of the API as data: validation, patching and documents that follow from them.
