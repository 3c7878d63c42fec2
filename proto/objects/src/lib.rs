//! What the API speaks: object envelope, names, selectors, quantities, patches, Status.
