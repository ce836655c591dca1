"""From a trained detector to what is deployed, and back: upcycle, collapse, export, run."""
