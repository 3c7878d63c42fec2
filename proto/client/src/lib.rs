//! A client of the API server: kubeconfig, fail-over over all masters, watch, exec.
